"""The package as it is imported, each time in a fresh interpreter."""

import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest

import scgpt

HEAVY = ("torch", "scvi", "numpy", "anndata", "pandas", "scanpy", "numba")


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def output_of(code: str) -> str:
    result = run(code)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# What importing costs


def test_importing_takes_under_half_a_second():
    code = "import time; start = time.process_time(); import scgpt; print(time.process_time() - start)"
    output_of(code)  # compiles
    assert min(float(output_of(code)) for _ in range(5)) < 0.5


def test_importing_with_the_interpreter_takes_under_half_a_second():
    def spent() -> float:
        """Of the processor, by processes that have ended: it does not grow where others keep the machine busy."""
        return sum(os.times()[2:4])

    def seconds() -> float:
        start = spent()
        output_of("import scgpt")
        return spent() - start

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("scgpt", HEAVY),
        ("scgpt.cli", HEAVY),
        ("scgpt.corpus", (*HEAVY, "annbatch", "zarr")),
        ("scgpt.index", (*HEAVY, "faiss")),
        ("scgpt.metrics", HEAVY),
        ("scgpt.metrics.baselines", HEAVY),
        ("scgpt.pl", HEAVY),
        ("scgpt.tl", HEAVY),
        ("scgpt.nn", ("scvi", "anndata", "pandas", "scanpy", "numba", "lightning")),
        ("scgpt.data", ("scvi", "scanpy", "lightning")),
        ("scgpt.hub", ("scvi", "scanpy", "lightning")),
    ],
)
def test_importing_loads_only_what_is_used(name, absent):
    loaded = output_of(f"import sys, {name}; print([m for m in {absent!r} if m in sys.modules])")
    assert loaded == "[]"


def test_rooms_open_when_they_are_used():
    code = """
import sys, scgpt
assert "scgpt.nn" not in sys.modules
scgpt.nn.ScGPTConfig(n_tokens=3)
print("scgpt.nn" in sys.modules, "scgpt.data" in sys.modules)
"""
    assert output_of(code) == "True False"


# The network with torch alone


def distributions_of_torch() -> set[str]:
    """torch and all that it requires, by name."""

    def normalised(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    found, todo = set(), ["torch"]
    while todo:
        name = normalised(todo.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requirements = requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        todo += [re.match(r"[\w.-]+", r)[0] for r in requirements if "extra ==" not in r]
    return found


BARE = """
import sys

class Bare:
    '''Stands for an environment in which the named packages are not installed.'''
    blocked = frozenset({blocked!r})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Bare())
import warnings
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch
from scgpt._token_batch import TokenBatch
from scgpt.nn import ScGPTConfig, ScGPTNetwork

torch.manual_seed(0)
network = ScGPTNetwork(ScGPTConfig(
    n_tokens=10, d_model=8, n_heads=2, n_layers=2, d_feed_forward=8, zero=True, n_classes=3, n_batches=2,
    batch_embedding=True, adversary=True, input_norm="domain", n_modalities=2, n_conditions=2,
))
ids = torch.tensor([[3, 5, 7], [3, 4, 0]])
padding = torch.tensor([[False, False, False], [False, False, True]])
batch = TokenBatch.from_padded(
    ids, ids.float(), padding, condition_ids=ids % 2, modality_ids=ids % 2, batch_labels=torch.tensor([0, 1])
)
out = network(batch, heads=("gep", "gepc", "zero", "cls", "dar"))
sum(x.square().sum() for x in (out.gep, out.gepc, out.zero, out.zero_gepc, out.cls, out.dar)).backward()
assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
for module in ("numpy", "anndata", "scvi", "scipy", "pandas", "numba"):
    assert module not in sys.modules, module
print("ok")
"""


def test_the_network_runs_where_only_torch_is_installed():
    allowed = distributions_of_torch() | {"scgpt-tools"}
    blocked = sorted(
        module
        for module, owners in packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & allowed
    )
    assert {"numpy", "scipy", "anndata", "scvi", "numba"} <= set(blocked)
    assert not {"torch", "typing_extensions", "scgpt"} & set(blocked)
    assert output_of(BARE.format(blocked=blocked)) == "ok"


# The authors' distribution


def test_the_authors_distribution_beside_ours_is_refused_in_one_line(tmp_path):
    folder = tmp_path / "scgpt-0.2.4.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: scgpt\nVersion: 0.2.4\n")
    result = run(f"import sys; sys.path.append({str(tmp_path)!r}); import scgpt")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: The authors' distribution scgpt 0.2.4 is installed beside scgpt-tools")
    assert "`pip uninstall -y scgpt scgpt-tools`, then `pip install scgpt-tools`" in last


def test_ours_alone_is_not_refused():
    assert output_of("import scgpt; print(scgpt.__name__)") == "scgpt"


# Names


ROOMS = [name for name in scgpt.__all__ if name.islower()]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_there(room):
    module = getattr(scgpt, room)
    assert module.__name__ == f"scgpt.{room}"
    assert module.__doc__
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)


def test_every_room_is_public():
    # The command line is none: it is called from a shell.
    folders = {path.parent.name for path in Path(scgpt.__file__).parent.glob("*/__init__.py")} - {"cli"}
    assert set(ROOMS) == folders
    assert set(dir(scgpt)) >= folders


def test_the_reference_index_is_at_the_top():
    assert scgpt.ReferenceIndex is scgpt.index.ReferenceIndex
    assert {"index", "ReferenceIndex"} <= set(dir(scgpt))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'scgpt' has no attribute 'lt'"):
        _ = scgpt.lt


def test_the_package_says_that_it_is_typed():
    assert (Path(scgpt.__file__).parent / "py.typed").is_file()


def test_the_distribution_has_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", version("scgpt-tools"))
