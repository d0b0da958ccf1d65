"""WeightStore: the trained tensors of a layer, each under its user's name, with its attributes built in."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import override

from opteq_cvx.errors import InputError, OpteqError, message
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Leaf, Stage
from opteq_cvx.weights.attributes import read
from opteq_cvx.weights.composite import Composite, composite
from opteq_cvx.weights.keys import safe_key
from opteq_cvx.weights.settle import Numbers, checked, settle


class WeightStore(nn.Module):
    """Weights by name. The parameters are free (raw) numbers; `value` is what the program sees.

    The `state_dict` holds exactly the raw parameters: `<key>` for a weight without attributes,
    `parametrizations.<key>.original` for the others, the key being the name wherever that is possible.

    Args:
        leaves: the weights, of stage WEIGHT, with different names.
        values: a starting value for each name (further names are ignored).
        dtype: of the parameters; torch's default dtype if None.

    Raises:
        CompileError: attributes that no weight can have. InputError: names or values that do not fit.

    Warns:
        WeightWarning: a value that was projected onto its set, or moved off its boundary.
    """

    def __init__(
        self, leaves: Sequence[Leaf], values: Mapping[str, Numbers], *, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self._leaves = {leaf.name: leaf for leaf in leaves}
        self._keys = {name: safe_key(name, WeightStore) for name in self._leaves}
        _check_names(leaves, values)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        for leaf in leaves:
            part, key = composite(leaf), self._keys[leaf.name]
            value = settle(leaf, part, checked(leaf, values[leaf.name]))
            self.register_parameter(key, nn.Parameter(value))
            if part is not None:
                # Values are settled above, and the checks of `unsafe=False` would evaluate them again.
                parametrize.register_parametrization(self, key, part, unsafe=True)
            self.raw(leaf.name).data = self.raw(leaf.name).data.to(dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """The users' names, in the program's order."""
        return tuple(self._leaves)

    def leaf(self, name: str) -> Leaf:
        """The declaration of a weight."""
        self._check(name)
        return self._leaves[name]

    def value(self, name: str) -> Tensor:
        """The weight as the program sees it, of its declared shape; differentiable in the raw parameter."""
        self._check(name)
        value: Tensor = getattr(self, self._keys[name])
        return value

    def raw(self, name: str) -> nn.Parameter:
        """The free parameter behind a weight: what an optimizer moves."""
        self._check(name)
        part, key = self._part(name), self._keys[name]
        found = getattr(self, key) if part is None else self.get_submodule(f"parametrizations.{key}").original
        assert isinstance(found, nn.Parameter)
        return found

    def set(self, name: str, value: Numbers | Tensor) -> None:
        """Give a weight a value (a tensor of any dtype and device, too); without its attributes it is projected.

        A projection warns.

        Raises:
            InputError: an unknown name, another shape, NaN or infinity.
        """
        self._check(name)
        raw, part = self.raw(name), self._part(name)
        if isinstance(value, Tensor):
            value = value.detach().cpu().double().numpy()
        settled = settle(self._leaves[name], part, checked(self._leaves[name], value).to(raw.device))
        with torch.no_grad():
            raw.copy_(settled if part is None else part.right_inverse(settled))

    def numpy(self, name: str) -> Array:
        """The value, evaluated in float64 and projected as CVXPY's strict checks ask; a copy."""
        raw, part = self.raw(name), self._part(name)
        with torch.no_grad():
            wide = raw.detach().double()
            value = wide if part is None else part.polish(part.forward(wide))
        return np.array(value.cpu().numpy(), dtype=np.float64)

    def __getitem__(self, name: str) -> Tensor:
        return self.value(name)

    def __contains__(self, name: object) -> bool:
        return name in self._leaves

    @override
    def __repr__(self) -> str:
        lines = (f"\n  {name}: {leaf.shape}, {read(leaf).text}" for name, leaf in self._leaves.items())
        return f"WeightStore({''.join(lines)}\n)" if self._leaves else "WeightStore()"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        replica = type(self).__new__(type(self))
        memo[id(self)] = replica
        replica.__dict__ = copy.deepcopy(self.__dict__, memo)
        return replica

    @override
    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        fix = "use oc.save(layer, path) and oc.load(path), or state_dict() and load_state_dict()"
        raise OpteqError(message("a layer cannot be pickled", "a file format without code in it", fix))

    def _part(self, name: str) -> Composite | None:
        key = self._keys[name]
        if not parametrize.is_parametrized(self, key):
            return None
        part = self.get_submodule(f"parametrizations.{key}.0")
        assert isinstance(part, Composite)
        return part

    def _check(self, name: str) -> None:
        if name not in self._leaves:
            expected = ", ".join(repr(n) for n in self._leaves) or "no weight at all"
            raise InputError(message(f"no weight named {name!r}", expected, "use one of these names"))


def _check_names(leaves: Sequence[Leaf], values: Mapping[str, Numbers]) -> None:
    seen: set[str] = set()
    for leaf in leaves:
        if not leaf.name:
            raise InputError(message("a weight without a name", "a non-empty name", "declare it with name="))
        if leaf.name in seen:
            found = f'two weights named "{leaf.name}"'
            raise InputError(message(found, "different names, they are keys of the state_dict", "rename one"))
        seen.add(leaf.name)
        if leaf.stage is not Stage.WEIGHT:
            raise InputError(message(f'"{leaf.name}" is of stage {leaf.stage.name}', "WEIGHT", "pass weights only"))
        if leaf.name not in values:
            raise InputError(message(f'no value for "{leaf.name}"', "a value for every weight", "add it to values"))
