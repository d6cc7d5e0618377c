"""Precision of products and repeatability on GPUs: settings that exist without one."""

import os

import pytest
import torch

from pgti.errors import ConfigError
from pgti.nn.numerics import deterministic_algorithms, float32_products, has_tf32

_GPU = torch.device("cuda", 0)
_SUMS = "allow_bf16_reduced_precision_reduction"


def _settings() -> dict[str, object]:
    """What torch says, in its new words and in its old ones where it still can."""
    found: dict[str, object] = {"cudnn": torch.backends.cudnn.allow_tf32}
    found["matmul"] = torch.get_float32_matmul_precision()
    for name in (_SUMS, f"{_SUMS}_split_k"):
        found[name] = getattr(torch.backends.cuda.matmul, name, None)
    for name in ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul"):
        first, second = name.split(".")
        holder = getattr(getattr(torch.backends, first), second, None)
        found[name] = getattr(holder, "fp32_precision", None)
    return found


@pytest.mark.parametrize("tf32", [True, False])
def test_products_and_cudnn_follow_the_precision_and_settings_return(tf32: bool) -> None:
    before = _settings()
    with float32_products(_GPU, tf32=tf32):
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32
        with float32_products(_GPU):  # validation within training
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32
    assert _settings() == before


def test_an_error_leaves_the_settings_as_they_were() -> None:
    before = _settings()
    with pytest.raises(ZeroDivisionError), float32_products(_GPU, tf32=True):
        raise ZeroDivisionError
    assert _settings() == before


@pytest.mark.parametrize("before", [True, False])
def test_bfloat16_adds_up_in_float32(before: bool) -> None:
    """By default cuBLAS may round sums of parts of a long product to bfloat16."""
    matmul = torch.backends.cuda.matmul
    default = getattr(matmul, _SUMS)
    try:
        setattr(matmul, _SUMS, before)
        settings = _settings()
        with float32_products(_GPU):
            assert getattr(matmul, _SUMS) is False
        assert _settings() == settings
    finally:
        setattr(matmul, _SUMS, default)


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has the old settings alone"
)
def test_what_a_user_set_in_the_new_words_returns() -> None:
    before = _settings()
    matmul = torch.backends.cuda.matmul
    try:
        matmul.fp32_precision = "tf32"  # torch then refuses to read the old setting
        with pytest.raises(RuntimeError):
            torch.get_float32_matmul_precision()
        with float32_products(_GPU):
            assert matmul.fp32_precision != "tf32"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before["cuda.matmul"]
    assert _settings() == before


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has the old settings alone"
)
def test_a_setting_for_all_of_torch_does_not_slip_into_cudnn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`allow_tf32 = False` alone leaves cuDNN what torch does in general, which stays so after."""
    before = _settings()
    with monkeypatch.context() as general:
        general.setattr(torch.backends, "fp32_precision", "tf32")
        with float32_products(_GPU):
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert torch.backends.cudnn.rnn.fp32_precision == "ieee"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert _settings() == before


def test_a_cpu_is_left_alone() -> None:
    before = _settings()
    with float32_products(torch.device("cpu"), tf32=True):
        assert _settings() == before
    assert not has_tf32(torch.device("cpu"))


def test_deterministic_algorithms_are_asked_for_and_settings_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with deterministic_algorithms(_GPU, enabled=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    for device, enabled in ((_GPU, False), (torch.device("cpu"), True)):
        with deterministic_algorithms(device, enabled=enabled):
            assert not torch.are_deterministic_algorithms_enabled()


def test_cublas_repeats_from_the_first_product_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch reads the environment at the first product: a later run may be deterministic."""
    # setenv first, so that monkeypatch removes what is set here.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with float32_products(torch.device("cpu")):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with float32_products(_GPU):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_process_that_multiplied_before_is_told_what_to_do() -> None:
    with (
        pytest.raises(
            ConfigError,
            match=r"^deterministic=True: .*set it to :4096:8 before Python starts$",
        ),
        deterministic_algorithms(_GPU, enabled=True),
    ):
        raise RuntimeError(
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms"
            "(True)` or `at::Context::setDeterministicAlgorithms(true)`, but this operation is not "
            "deterministic because it uses CuBLAS and you have CUDA >= 10.2. To enable "
            "deterministic behavior in this case, you must set an environment variable before "
            "running your PyTorch application: CUBLAS_WORKSPACE_CONFIG=:4096:8 or "
            "CUBLAS_WORKSPACE_CONFIG=:16:8. For more information, go to ..."
        )


def test_a_workspace_of_the_users_own_stays_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic_algorithms(_GPU, enabled=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2")
    with (
        pytest.raises(
            ConfigError, match=r"CUBLAS_WORKSPACE_CONFIG=:4096:2.*unset it, or set it to"
        ),
        deterministic_algorithms(_GPU, enabled=True),
    ):
        pass


def test_what_has_no_deterministic_algorithm_is_refused_in_one_line() -> None:
    with (
        pytest.raises(
            ConfigError, match=r"^deterministic=True: .*histc_cuda.*; leave the option out"
        ),
        deterministic_algorithms(_GPU, enabled=True),
    ):
        raise RuntimeError(
            "histc_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for "
            "this operation"
        )
    assert not torch.are_deterministic_algorithms_enabled()
    with (
        pytest.raises(RuntimeError, match="another"),
        deterministic_algorithms(_GPU, enabled=True),
    ):
        raise RuntimeError("another error")
