"""The IR in torch: `evaluate` for parameter expressions, `operator` for linear maps, `affine` for both."""
