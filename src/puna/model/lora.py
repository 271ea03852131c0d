"""Low-rank adapters (LoRA: Hu et al. 2021) on linear layers; trained rows of embedding and head.

    apply(model, Adapter(rank=16, alpha=32.0), seed=1)    # freezes the model, trains s B A beside its weights
    plain = merge(model)

The weight W of an adapted layer is W + s B A wherever it is used, made anew by each access, for rank / tokens
of the cost of the layer's product. So forward and backward are those of any model (`puna.model.block`), on
one process or under FSDP2, in every precision and under every policy. What is saved is the gradient of W, a
third product and memory for it: the storage of a merged weight carries what takes gradient g [n, outputs] and
input x [n, inputs] instead, and the adapters' own gradients are thin products,

    dA = s (g B)' x,    dB = s g' (x A').

They wait at the layer until autograd asks for them (`Merged.backward`). A gradient of W that comes whole,
from the head or from autograd on plain operations, is taken as well: dA = s B' dW, dB = s dW A'. Between a
layer's forward and its backward no merged weight is kept: what is saved of it is how it is made.

There is no dropout of inputs, which has no merged form.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from puna.errors import UserError
from puna.model.block import linear, weight_gradient
from puna.model.config import LlamaConfig
from puna.model.initial_weights import BLOCK_ROWS, normal_rows
from puna.model.kernels import low_rank_gradients, upcast
from puna.model.llama import Llama
from puna.model.weights.hf import NAMES
from puna.model.weights.source import IN_LAYER, Entry, Source

ALL_LINEAR = "all-linear"  # PEFT's word for every linear layer but the head
ALONE = "adapters go with data parallelism alone: set the size of tensor parallelism to 1"
MATRICES = tuple(name for name in IN_LAYER if not name.endswith("norm"))
Factors = tuple[Tensor, Tensor, float]  # A [r, inputs], B [outputs, r], s


@dataclass(frozen=True)
class Adapter:
    """What is adapted, and how much; names and their meaning are those of PEFT's LoraConfig.

    targets: last parts of layers' names in Hugging Face's words or Meta's, such as "q_proj", "wq" or
    "lm_head", a regular expression of Hugging Face's whole names, or "all-linear", all but the head. rs: the
    scale is alpha / sqrt(rank) (Kalajdzievski 2023) instead of alpha / rank. rank_pattern, alpha_pattern:
    other values by regular expressions of the ends of Hugging Face's names, the first that fits. rows: ids of
    tokens whose rows of embedding and head are trained.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: str | Sequence[str] = ALL_LINEAR
    rs: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[int, ...] = ()

    def layers(self, config: LlamaConfig) -> dict[str, str]:
        """The layers that are adapted: their names at Hugging Face's by ours. Raises UserError for targets
        that are none."""
        ours = [f"layers.{layer}.{name}" for layer in range(config.n_layers) for name in MATRICES]
        names = {name: NAMES.theirs(f"{name}.weight").removesuffix(".weight") for name in [*ours, "output"]}
        if self.targets == ALL_LINEAR:
            return {name: theirs for name, theirs in names.items() if name != "output"}
        whole = isinstance(self.targets, str)
        found = {
            target: {name for name, theirs in names.items() if _fits(target, whole, name, theirs)}
            for target in ([self.targets] if isinstance(self.targets, str) else self.targets)
        }
        missing = [target for target, layers in found.items() if not layers]
        if missing or not found:
            known = ", ".join(sorted({theirs.rpartition(".")[2] for theirs in names.values()}))
            raise UserError(f"no layer is called {', '.join(missing)}; there are {known}")
        return {name: theirs for name, theirs in names.items() if any(name in one for one in found.values())}

    def size_of(self, module: str) -> tuple[int, float]:
        """(rank, scale) at a module."""
        rank, alpha = _by(self.rank_pattern, module, self.rank), _by(self.alpha_pattern, module, self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.rs else rank)


def _fits(target: str, whole: bool, ours: str, theirs: str) -> bool:
    if whole:
        return re.fullmatch(target, theirs) is not None
    return any(f".{name}".endswith(f".{target}") for name in (ours, theirs))


def _by(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


class Change(NamedTuple):
    """How a weight comes to be another where it is used, and where its gradient goes. owner: the layer, at
    which gradients wait for autograd. names: of the adapters, with their factors."""

    owner: "Adapted"
    base: Tensor
    names: tuple[str, ...]
    factors: tuple[Factors, ...]

    @torch.no_grad()
    def make(self) -> Tensor:
        """The merged weight: summed in the factors' precision, then rounded to that of the base."""
        merged = added(self.base, self.factors)
        merged.untyped_storage().low_rank = self.take  # type: ignore[attr-defined]
        return merged

    def take(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Keep the factors' gradients by gradient [n, outputs] and input [n, inputs]; what stands for that of
        the weight."""
        for name, (a, b, scale) in zip(self.names, self.factors, strict=True):
            if a.requires_grad or b.requires_grad:
                given = gradient, x, a, b, scale
                self.owner.keep(name, *(low_rank_gradients(*given) or _thin_products(*given)))
        nothing = self.base.new_zeros(())
        nothing.untyped_storage().is_nothing = True  # type: ignore[attr-defined]
        return nothing.expand(self.base.shape)


def _thin_products(gradient: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """See `kernels.low_rank_gradients`."""
    da = weight_gradient(linear(gradient, b.t()), x, a.dtype)
    db = weight_gradient(linear(x, a), gradient, b.dtype).t()  # this way round it takes 2/3 of the time
    return da.to(a.dtype) * scale, db.to(b.dtype) * scale


def added(base: Tensor, factors: Sequence[Factors]) -> Tensor:
    """base + the sum of s B A, in the precision of base."""
    total = base
    for a, b, scale in factors:
        total = torch.addmm(total.to(a.dtype), b, a, alpha=scale)
    return total.to(base.dtype)


class Merged(torch.autograd.Function):
    """A changed weight, of the factors' parameters."""

    @staticmethod
    def forward(ctx: Any, change: Change, *factors: Tensor) -> Tensor:
        ctx.change = change
        return change.make()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        change, gradient, found = ctx.change, gradients[0], []
        whole = not getattr(gradient.untyped_storage(), "is_nothing", False)
        for number, (name, (a, b, scale)) in enumerate(zip(change.names, change.factors, strict=True)):
            needed = ctx.needs_input_grad[2 * number + 1 : 2 * number + 3]
            if whole and any(needed):
                wide = gradient.to(a.dtype)
                change.owner.keep(name, scale * (b.t() @ wide), scale * (wide @ a.t()))
            kept = change.owner.pending.pop(name, (None, None))
            found += [one if need else None for one, need in zip(kept, needed, strict=True)]
        return None, *found


class Adapted(nn.Module):
    """A linear layer with adapters, of which the `active` ones are added to its weight.

    base: W [outputs, inputs]. a, b: A and B by adapter's name. scales: s. pending: gradients.
    """

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base, self.a, self.b = base, nn.ParameterDict(), nn.ParameterDict()
        self.scales: dict[str, float] = {}
        self.active: tuple[str, ...] = ()
        self.pending: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(self, name: str, da: Tensor, db: Tensor) -> None:
        """Add to the gradients that wait for autograd."""
        if name in self.pending:
            da, db = (one + other for one, other in zip((da, db), self.pending[name], strict=True))
        self.pending[name] = da, db

    @property
    def weight(self) -> Tensor:
        """W + the sum of s B A. Raises UserError where tensor parallelism has split W."""
        if hasattr(self.base, "full_tensor"):
            raise UserError(ALONE)
        names = tuple(name for name in self.active if name in self.scales)
        factors = tuple((self.a[name], self.b[name], self.scales[name]) for name in names)
        if not factors or torch.compiler.is_compiling():
            return added(self.base, factors)
        parameters = (one for a, b, _ in factors for one in (a, b))
        return Merged.apply(Change(self, self.base, names, factors), *parameters)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class TrainedRows(nn.Module):
    """The embedding or the head, or both where they are tied, whose rows `ids` alone are trained.

    base: W [V, d]; its rows `ids` are overwritten by `rows` [k, d] whenever it is used.
    """

    def __init__(self, base: Any, ids: Sequence[int], name: str) -> None:
        super().__init__()
        self.base, self.name = base, name
        self.rows = nn.Parameter(upcast(base.detach()[list(ids)]))
        self.ids: Tensor
        self.register_buffer("ids", torch.tensor(ids, device=base.device), persistent=False)

    @property
    def weight(self) -> Tensor:
        """W with these rows; where FSDP2 has not gathered it, its parts, of which only the type is asked."""
        if hasattr(self.base, "full_tensor"):
            return self.base
        return Rows.apply(self, self.rows)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


Changed = Adapted | TrainedRows  # modules whose `weight` is another than their base


class Rows(torch.autograd.Function):
    """The table of `TrainedRows`, of its rows."""

    @staticmethod
    def forward(ctx: Any, owner: TrainedRows, rows: Tensor) -> Tensor:
        ctx.ids, ctx.dtype = owner.ids, rows.dtype
        return owner.base.data.index_copy_(0, owner.ids, rows.to(owner.base.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, gradients[0].index_select(0, ctx.ids).to(ctx.dtype)


def _pack(saved: Tensor) -> Any:
    """How a merged weight is made, instead of it; other tensors as they are."""
    take = getattr(saved.untyped_storage(), "low_rank", None)
    return saved if take is None else (take.__self__, saved.shape, saved.stride())


def _unpack(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    change, shape, stride = packed
    return change.make().as_strided(shape, stride)  # autograd's own products save the transposed weight


def _save_no_merged_weight(layer: nn.Module) -> None:
    """What a layer saves for its backward holds no merged weight from now on."""
    entered: list[saved_tensors_hooks] = []

    def enter(*_: Any) -> None:
        entered.append(saved_tensors_hooks(_pack, _unpack))
        entered[-1].__enter__()

    def leave(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    layer.register_forward_pre_hook(enter)
    layer.register_forward_hook(leave, always_call=True)


def changed_modules(model: Llama) -> dict[str, Changed]:
    """Modules with adapters or trained rows, by our names; a tied one once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Changed)}


def adapters_of(model: Llama) -> dict[str, Adapter]:
    """The adapters that a model has, by name."""
    found: dict[str, Adapter] = model.__dict__.setdefault("adapters", {})
    return found


def apply(model: Llama, adapter: Adapter, *, name: str = "default", seed: int = 0) -> None:
    """Put an adapter beside those that a model has, in place; it is the active one then, and all that is
    trained.

    A comes from (seed, layer's name) alone, B is 0, and rows are what they were: so is the model. Raises
    UserError for targets and rows that the model does not have, or not once more, and for a model that is
    split over processes.
    """
    if model.tensor_parallel is not None:
        raise UserError(ALONE)
    taken = adapter.layers(model.config)
    changed = changed_modules(model)
    if adapter.rows and ("output" in taken or {"tok_embeddings", "output"} & changed.keys()):
        raise UserError("rows of new tokens go with one adapter, and none of the head (lm_head)")
    if not changed:
        for layer in model.layers:
            _save_no_merged_weight(layer)
    for ours, theirs in taken.items():
        module = changed.get(ours) or Adapted(model.get_submodule(ours).weight)
        assert isinstance(module, Adapted)
        model.set_submodule(ours, module)
        rank, module.scales[name] = adapter.size_of(theirs)
        a, b = initial_factors(ours, module.base, rank, seed)
        module.a[name], module.b[name] = nn.Parameter(a), nn.Parameter(b)
    if adapter.rows:
        model.set_submodule("tok_embeddings", TrainedRows(model.tok_embeddings.weight, adapter.rows, name))
        head = TrainedRows(model.output.weight, adapter.rows, name)
        model.set_submodule("output", model.tok_embeddings if model.config.tie_embeddings else head)
    adapters_of(model)[name] = adapter
    activate(model, name)


def initial_factors(layer: str, base: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """A normal, of the variance of PEFT's uniform one, 1 / (3 inputs); B zero. Both in float32 or better."""
    outputs, inputs = base.shape
    blocks = [
        normal_rows(seed, f"{layer}.lora_A", first // BLOCK_ROWS, (min(BLOCK_ROWS, rank - first), inputs))
        for first in range(0, rank, BLOCK_ROWS)
    ]
    b = upcast(base.new_zeros(outputs, rank))
    return (torch.cat([torch.from_numpy(block) for block in blocks]) / math.sqrt(3 * inputs)).to(b), b


def activate(model: Llama, *names: str) -> None:
    """Add these adapters to the weights, and no others; they alone are trained. Raises UserError for a name
    that the model has not."""
    if missing := [name for name in names if name not in adapters_of(model)]:
        known = ", ".join(adapters_of(model)) or "none"
        raise UserError(f"no adapter is called {missing[0]}; there are {known}")
    model.requires_grad_(False)
    for module in changed_modules(model).values():
        if isinstance(module, TrainedRows):
            module.rows.requires_grad_(module.name in names)
            continue
        assert isinstance(module, Adapted)
        module.active = tuple(name for name in names if name in module.scales)
        for name in module.active:
            module.a[name].requires_grad_()
            module.b[name].requires_grad_()


def grow(model: Llama, ids: Sequence[int]) -> None:
    """Give a model rows of embedding and head for new tokens, in place: the mean of the rows before them.

    ids: behind those of all other tokens; rows that the model has there already are padding.
    """
    first, size = min(ids), max(model.config.vocab_size, max(ids) + 1)
    for module in (model.tok_embeddings, model.output):
        table = module.weight.detach()
        grown = table.new_empty(size, table.shape[1])
        grown[: len(table)] = table
        grown[list(ids)] = table[:first].mean(0, dtype=torch.float64).to(table.dtype)
        module.weight = nn.Parameter(grown, requires_grad=module.weight.requires_grad)
    if model.config.tie_embeddings:
        model.output.weight = model.tok_embeddings.weight
    model.config = model.config.model_copy(update={"vocab_size": size})


def merged_source(model: Llama) -> Source:
    """The weights of a model with the active adapters added, each made when it is read. A tied head that is
    adapted is tied no more."""
    changed, config = changed_modules(model), model.config
    if config.tie_embeddings and isinstance(changed.get("output"), Adapted):
        config = config.model_copy(update={"tie_embeddings": False})
    kept = Source.of(model).weights.items()
    weights = {key: entry for key, entry in kept if not key.startswith(tuple(f"{name}." for name in changed))}
    for name, module in changed.items():
        weights[f"{name}.weight"] = Entry(tuple(module.base.shape), partial(_read, module))
    return Source("memory", Path(), config, weights)


@torch.no_grad()
def _read(module: Changed) -> Tensor:
    return module.weight.cpu()


def merge(model: Llama) -> Llama:
    """A plain model of the weights with the active adapters added; it shares no memory with `model`."""
    base = model.norm.weight
    return merged_source(model).build(str(base.device), base.dtype)
