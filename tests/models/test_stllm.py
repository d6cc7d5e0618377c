"""ST-LLM against GPT-2 written from its definition, what is frozen, and weights from files."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pgti
from pgti.errors import ConfigError, MissingExtraError
from pgti.graph import SensorGraph
from pgti.models import (
    STLLM,
    AbstractModel,
    STLLMConfig,
    build_config,
    num_parameters,
)
from pgti.nn import ChunkLimits

from .dense_reference import (
    affine,
    assert_equals_reference,
    calendar_vectors,
    layer_norm,
    regression,
)
from .small_models import (
    BATCH,
    CHANNELS,
    FLOAT64,
    INPUT_STEPS,
    NUM_NODES,
    SMALL,
    build,
    count_parameters,
    inputs,
    measure_memory,
    shape,
    supports_of,
)

CALENDARS = [("time-of-day", "day-of-week"), ("day-of-week",), ("time-of-day",), ()]
HEADS, LAYERS, WIDTH = 2, 2, 8
EPSILON = 1e-5


def reference_block(block: nn.Module, h_ND: Tensor, kept: list[Tensor] | None) -> Tensor:
    """One layer of GPT-2: norms come first, and a token reads itself and those before it."""

    def affine_of_gpt2(part: str, vectors: Tensor) -> Tensor:
        layer = block.get_submodule(part)  # stored [in, out]
        return vectors @ layer.get_parameter("weight") + layer.get_parameter("bias")

    size = WIDTH // HEADS
    made = affine_of_gpt2("attn.c_attn", layer_norm(block.get_submodule("ln_1"), h_ND))
    read = torch.zeros_like(h_ND)
    for token in range(len(h_ND)):
        for head in range(HEADS):
            columns = slice(head * size, (head + 1) * size)
            query = made[token, :WIDTH][columns]
            keys = made[: token + 1, WIDTH : 2 * WIDTH][:, columns]
            values = made[: token + 1, 2 * WIDTH :][:, columns]
            weights = torch.exp(keys @ query / math.sqrt(size))
            read[token, columns] = weights / weights.sum() @ values
    attended = affine_of_gpt2("attn.c_proj", read)
    h_ND = h_ND + (attended if kept is None else attended * kept[0])
    units = affine_of_gpt2("mlp.c_fc", layer_norm(block.get_submodule("ln_2"), h_ND))
    cubic = math.sqrt(2 / math.pi) * (units + 0.044715 * units**3)
    fed = affine_of_gpt2("mlp.c_proj", units / 2 * (1 + torch.tanh(cubic)))
    return h_ND + (fed if kept is None else fed * kept[1])


def reference_tokens(model: AbstractModel, x: Tensor, sample: int) -> Tensor:
    """What GPT-2 is given of one sample, [N, width]."""
    p = dict(model.named_parameters())
    times = calendar_vectors(model, 31 * sample + INPUT_STEPS - 1)  # of the last row
    tokens = []
    for node in range(NUM_NODES):
        parts = [affine(model.get_submodule("token_embedding"), x[sample, :, node].flatten())]
        if times:
            parts.append(torch.stack(times).sum(dim=0))
        parts.append(p["node_embedding"][node])
        fused = affine(model.get_submodule("fusion"), torch.cat(parts))
        tokens.append(fused + p["position_embedding"][node])
    return torch.stack(tokens)


def reference(model: AbstractModel, x: Tensor, kept: list[Tensor] | None = None) -> Tensor:
    """The whole model, sample by sample.

    Args:
        model: whose parameters are used, by name.
        x: [B, L, N, C].
        kept: dropout masks [B, N, width], one for the tokens and two for each layer.
    """
    samples = []
    for sample in range(BATCH):
        h_ND = reference_tokens(model, x, sample)
        if kept is not None:
            h_ND = h_ND * kept[0][sample]
        for layer in range(LAYERS):
            masks = kept and [each[sample] for each in kept[1 + 2 * layer : 3 + 2 * layer]]
            h_ND = reference_block(model.get_submodule(f"blocks.{layer}"), h_ND, masks)
        samples.append(regression(model, layer_norm(model.get_submodule("norm"), h_ND)))
    return torch.stack(samples)


@pytest.mark.parametrize("tokens", [4, 1 << 12])
@pytest.mark.parametrize("calendar", CALENDARS)
def test_forecasts_and_gradients_equal_the_reference(
    calendar: tuple[str, ...], tokens: int
) -> None:
    """Outputs and the gradients of all parameters, the frozen ones too, in float64.

    Layers of a whole batch, and of one window, then of four tokens, at a time.
    """
    sizes = shape(calendar=calendar, input_channels=CHANNELS - 2 + len(calendar))
    model = build("st-llm", sizes).double()
    model.limits = ChunkLimits(tokens=tokens)
    model.requires_grad_()
    assert_equals_reference(model, inputs(FLOAT64, sizes), reference, atol=1e-10)


def test_tokens_and_outputs_of_both_networks_are_dropped() -> None:
    """In training, with the masks that torch's generator draws; attention weights are not."""
    model = build("st-llm", dropout=0.3).double().train()
    x = inputs(FLOAT64)
    torch.manual_seed(8)
    found = model(x, supports_of(model))
    torch.manual_seed(8)
    ones = torch.ones(BATCH, NUM_NODES, WIDTH, dtype=FLOAT64)
    kept = [functional.dropout(ones, 0.3) for _ in range(1 + 2 * LAYERS)]
    torch.testing.assert_close(found, reference(model, x, kept), rtol=1e-10, atol=1e-10)


def test_a_sensor_sees_those_before_it_alone() -> None:
    """Attention is causal in the order of the store."""
    model, x = build("st-llm").double(), inputs(FLOAT64).requires_grad_()
    for node in range(NUM_NODES):
        forecast = model(x, supports_of(model))[:, :, node]
        (gradient,) = torch.autograd.grad(forecast.square().sum(), x)
        seen = gradient.abs().amax(dim=(0, 1, 3)) > 0
        assert seen.tolist() == [other <= node for other in range(NUM_NODES)]


@pytest.mark.parametrize("unfrozen", [0, 1, 3])
def test_attention_is_partially_frozen(unfrozen: int) -> None:
    """Feed-forward networks always, attention in all but the last layers, norms never."""
    model = build("st-llm", gpt_layers=3, unfrozen=unfrozen)
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        frozen = parts[0] == "blocks" and (
            parts[2] == "mlp" or (parts[2] == "attn" and int(parts[1]) < 3 - unfrozen)
        )
        assert parameter.requires_grad != frozen, name
    assert model.position_embedding.requires_grad


def test_the_default_is_as_large_as_gpt2() -> None:
    """GPT-2 has 124,439,808 parameters, its 50,257 words among them, on 1,024 positions."""
    sizes = shape(num_nodes=1024)
    with torch.device("meta"):
        model = STLLM(STLLMConfig(gpt_layers=12), sizes)
    parts = [model.position_embedding, *model.blocks.parameters(), *model.norm.parameters()]
    assert sum(each.numel() for each in parts) + 50_257 * 768 == 124_439_808
    assert "wte" not in " ".join(model.state_dict())


def test_a_small_model_counts_what_it_learns() -> None:
    """What is frozen is not learnt."""
    model = build("st-llm")
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    mlp, attention = 8 * 32 + 32 + 32 * 8 + 8, 8 * 24 + 24 + 8 * 8 + 8
    assert frozen == LAYERS * mlp + attention
    learned = count_parameters(model) - frozen
    assert num_parameters("st-llm", SMALL["st-llm"], shape()) == learned


def step_bytes(num_nodes: int, *, checkpointing: bool = False) -> int:
    """The most that the tensors of a step of training take, forward and back."""
    sizes = shape(num_nodes=num_nodes, input_steps=1, horizon=1)
    model = build("st-llm", sizes, gpt_layers=6 if checkpointing else 1).train()
    model.activation_checkpointing = checkpointing
    graph = SensorGraph.empty(num_nodes)
    return measure_memory(model, inputs(sizes=sizes, batch=1), graph)[1]


def test_memory_grows_with_the_sensors_and_not_with_their_square() -> None:
    """No N x N weights, dropout or not: twice the sensors take twice the memory."""
    assert step_bytes(2048) < 2.05 * step_bytes(1024)


def test_recomputing_saves_memory() -> None:
    """Six layers that are made again take little more than one that is kept."""
    assert step_bytes(1024, checkpointing=True) < 2 * step_bytes(1024)


def save_gpt2(directory: Path, num_positions: int = 16) -> nn.Module:
    """Save a GPT-2 of three small layers, every parameter away from its initial value."""
    from transformers import GPT2Config, GPT2Model  # noqa: PLC0415 - slow

    sizes = {"n_layer": 3, "n_embd": WIDTH, "n_head": HEADS, "n_positions": num_positions}
    words = {"vocab_size": 11, "bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(20)
    gpt2: nn.Module = GPT2Model(GPT2Config(**{**sizes, **words}))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in gpt2.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    gpt2.save_pretrained(directory)  # type: ignore[operator]
    return gpt2.eval()


def as_directory(directory: Path, _: nn.Module) -> Path:
    return directory


def as_file(directory: Path, _: nn.Module) -> Path:
    return directory / "model.safetensors"


def as_pickle_of_a_larger_model(directory: Path, gpt2: nn.Module) -> Path:
    """As a language model has them: names with a prefix, and a head that is not needed."""
    tensors = {f"transformer.{name}": each for name, each in gpt2.state_dict().items()}
    torch.save({**tensors, "lm_head.weight": torch.zeros(11, WIDTH)}, directory / "weights.bin")
    return directory / "weights.bin"


@pytest.mark.parametrize("place", [as_directory, as_file, as_pickle_of_a_larger_model])
def test_weights_from_files_make_the_layers_those_of_gpt2(
    place: Callable[[Path, nn.Module], Path], tmp_path: Path
) -> None:
    """The first layers, the norm and the positions: forecasts are those around GPT-2 itself."""
    gpt2 = save_gpt2(tmp_path)
    path = str(place(tmp_path, gpt2))
    torch.manual_seed(0)
    model = STLLM(STLLMConfig(**{**SMALL["st-llm"], "weights": path}), shape()).eval()  # type: ignore[arg-type]
    x = inputs()
    tokens_BND = torch.stack([reference_tokens(model, x, sample) for sample in range(BATCH)])
    gpt2.h = gpt2.h[:LAYERS]  # type: ignore[index]
    # It adds the positions itself.
    tokens_BND = tokens_BND - gpt2.wpe.weight[:NUM_NODES]  # type: ignore[union-attr]
    read_BND = gpt2(inputs_embeds=tokens_BND).last_hidden_state
    torch.testing.assert_close(model(x, supports_of(model)), model.regression(read_BND))
    assert not model.blocks[0].mlp.c_fc.weight.requires_grad


def test_more_sensors_than_positions_have_random_ones(tmp_path: Path) -> None:
    """Those of GPT-2 come first, and the rest are as without weights."""
    gpt2 = save_gpt2(tmp_path, num_positions=4)
    torch.manual_seed(0)
    drawn = STLLM(STLLMConfig(**SMALL["st-llm"]), shape())  # type: ignore[arg-type]
    torch.manual_seed(0)
    loaded = STLLM(STLLMConfig(**{**SMALL["st-llm"], "weights": str(tmp_path)}), shape())  # type: ignore[arg-type]
    assert torch.equal(loaded.position_embedding[:4], gpt2.wpe.weight)  # type: ignore[union-attr]
    assert torch.equal(loaded.position_embedding[4:], drawn.position_embedding[4:])
    assert torch.equal(loaded.fusion.weight, drawn.fusion.weight)


def test_a_run_needs_the_file_no_more(tmp_path: Path) -> None:
    """Its checkpoints hold the weights: it is evaluated and goes on where the file is not."""
    weights = tmp_path / "gpt2"
    save_gpt2(weights)
    store = pgti.ingest(np.random.default_rng(0).random((90, 3)), tmp_path / "store").path
    options = {**SMALL["st-llm"], "weights": str(weights)}

    def train(epochs: int) -> pgti.Run:
        return pgti.train(
            store, tmp_path / "run", model="st-llm", model_options=options, epochs=epochs,
            batch_size=16, resume=epochs > 1, windows=pgti.WindowConfig(input_steps=3, horizon=2),
        )  # fmt: skip

    errors = train(1).evaluate().mae
    weights.rename(tmp_path / "elsewhere")
    assert pgti.Run.open(tmp_path / "run").evaluate().mae == errors
    assert train(2).evaluate().mae != errors


class Hostile:
    """A pickle that would leave a trace if it were run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def spoil(directory: Path, how: str) -> Path:
    """A directory of weights with one thing wrong, or a path to what is no weights."""
    if how == "missing":
        return directory / "nowhere"
    if how == "empty":
        return directory
    save_gpt2(directory)
    if how == "torn":
        (directory / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    elif how == "hostile":
        torch.save({"wpe.weight": Hostile(directory / "trace")}, directory / "evil.bin")
        return directory / "evil.bin"
    elif how == "list":
        torch.save([torch.zeros(1)], directory / "list.bin")
        return directory / "list.bin"
    elif how == "json":
        (directory / "config.json").write_text("[]")
    else:
        settings = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**settings, how: 4}))
    return directory


@pytest.mark.parametrize(
    ("how", "options", "words"),
    [
        ("missing", {}, "weights is '.*nowhere': the file or directory does not exist"),
        ("empty", {}, r"must contain model\.safetensors or pytorch_model\.bin"),
        ("torn", {}, "cannot be read as safetensors"),
        ("hostile", {}, "cannot be read by torch.load as named tensors"),
        ("list", {}, "cannot be read by torch.load as named tensors"),
        ("json", {}, "cannot be read as a JSON object"),
        ("n_head", {}, "n_head is 4 in .* and 2 in the model"),
        ("activation_function", {}, "activation_function is 4 in .* and 'gelu_new' in the model"),
        ("n_layer", {"gpt_layers": 4}, r"lacks the tensor 'h\.3\..*gpt_layers"),
        (
            "n_layer",
            {"width": 12},
            r"has wpe\.weight of the shape \(7, 8\) .* \(7, 12\): width, 12",
        ),
    ],
)
def test_weights_that_cannot_be_used_are_refused(
    how: str, options: dict[str, object], words: str, tmp_path: Path
) -> None:
    """One line: what, the value, the rule; and nothing in a file is run."""
    path = spoil(tmp_path, how)
    config = build_config("st-llm", {**SMALL["st-llm"], **options, "weights": str(path)})
    with pytest.raises(ConfigError, match=words) as caught:
        STLLM(config, shape())  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists()


def test_without_transformers_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"transformers is not .* 'pgti\[llm\]'"):
        STLLM(STLLMConfig(), shape())


def test_transformers_is_imported_when_a_model_is_built() -> None:
    """It takes seconds, so neither the package nor the list of models does it."""
    code = (
        "import sys, pgti, pgti.models; "
        "pgti.models.build_config('st-llm', {}); "
        "print([name for name in ('transformers', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpt_layers": 0}, "gpt_layers is 0: it must be at least 1"),
        ({"unfrozen": -1}, "unfrozen is -1"),
        ({"unfrozen": 7}, "unfrozen is 7: it must be at most gpt_layers, 6"),
        ({"heads": 5}, "heads is 5: it must divide width, 768"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STLLMConfig(**options)  # type: ignore[arg-type]
