"""Names of the splittings."""

from typing import Literal, get_args

SplittingName = Literal["closed-form", "forward-backward", "davis-yin", "douglas-rachford", "primal-dual"]
NAMES: tuple[str, ...] = get_args(SplittingName)
