"""Build hiddennet's two libraries: _C (schema and CPU loops, always) and _C_cuda (kernels, where a toolkit is found).

In place also runtime._runtime, which needs pybind11; a wheel leaves hiddennet.runtime to the wheel that runtime/ makes.

    python setup.py build_ext --inplace          pip install --no-build-isolation -e .

HIDDENNET_CUDA=0 never builds the kernels, =1 insists on them; TORCH_CUDA_ARCH_LIST names their targets.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent.resolve()
sys.path.insert(0, str(ROOT))
from build_tools.cuda_toolkit import find_toolkit  # noqa: E402
from build_tools.runtime_extension import runtime_extension  # noqa: E402

TOOLKIT = find_toolkit()
if TOOLKIT.home is not None:  # torch's own guess is wrong when nvcc on PATH is a wrapper script
    os.environ["CUDA_HOME"] = str(TOOLKIT.home)
os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
os.environ.setdefault("MAX_JOBS", str(min(4, os.cpu_count() or 1)))

import torch  # noqa: E402
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402

TARGET = "0x020b000000000000"  # the stable ABI of torch 2.11
OPS = ROOT / "csrc" / "ops"
CXX_FLAGS = [
    "-O3",
    "-g0",  # Python's own flags ask for symbols: a tenth of the size, a fifth less time without
    "-std=c++17",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # every backend rounds each operation
    "-Wall",
    "-Wno-unused-function",
]


def cuda_verdict() -> tuple[bool, str]:
    """Whether to build the kernels, and the reason in one sentence."""
    wish = os.environ.get("HIDDENNET_CUDA", "")
    if wish not in ("", "0", "1"):
        raise SystemExit(f"setup.py: expected HIDDENNET_CUDA to be 0 or 1, got {wish!r}")
    if wish == "0":
        return False, "HIDDENNET_CUDA=0 switched it off"
    missing = None
    if torch.version.cuda is None:
        missing = f"torch {torch.__version__} is a build without CUDA"
    elif TOOLKIT.home is None:
        missing = TOOLKIT.reason
    if missing is None:
        return True, f"CUDA toolkit at {TOOLKIT.home}, targets {os.environ['TORCH_CUDA_ARCH_LIST']}"
    if wish == "1":
        raise SystemExit(f"setup.py: HIDDENNET_CUDA=1 asks for the CUDA kernels, but {missing}")
    return False, missing


def relative(paths: list[Path]) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def options(module: str, *, cuda: bool) -> dict:
    macros = [
        ("TORCH_TARGET_VERSION", TARGET),
        ("HN_MODULE_NAME", f'"{module}"'),
        ("HN_MODULE_INIT", f"PyInit_{module}"),
    ]
    include = []
    if TOOLKIT.nvtx is not None:
        macros.append(("HN_NVTX", None))
        include.append(str(TOOLKIT.nvtx))
    if cuda:
        macros.append(("HN_CUDA", None))
        # torch's stable headers ask for the CUDA part of the ABI by this name
        macros.append(("USE_CUDA", None))
    return {"define_macros": macros, "include_dirs": include, "py_limited_api": True}


def extensions() -> list:
    glue = list(OPS.glob("*/*_op.cpp"))
    module = ROOT / "csrc" / "module.cpp"
    cpu_sources = [module, OPS / "schema.cpp", *OPS.glob("*/*_cpu.cpp")]
    cpu_sources += [path for path in glue if path.parent.name != "masked_conv"]
    found = [
        CppExtension(
            "hiddennet._C",
            relative(cpu_sources),
            extra_compile_args={"cxx": CXX_FLAGS},
            **options("_C", cuda=False),
        )
    ]
    if CUDA:
        found.append(
            CUDAExtension(
                "hiddennet._C_cuda",
                relative([module, *glue, *OPS.glob("*/*.cu")]),
                extra_compile_args={
                    "cxx": CXX_FLAGS,
                    "nvcc": ["-O3", "-std=c++17", "-lineinfo", "-Xcompiler=-fvisibility=hidden"],
                },
                **options("_C_cuda", cuda=True),
            )
        )
    return found


class Build(BuildExtension):
    """BuildExtension that says what was built, and why not the rest."""

    def finalize_options(self) -> None:
        if self.inplace or getattr(self, "editable_mode", False):
            try:
                self.distribution.ext_modules.append(runtime_extension(ROOT))
            except ImportError:
                print("hiddennet: did not build runtime._runtime: pybind11 is missing")
        if self.inplace and self.build_lib is None:  # the folder of the next wheel is without the runtime
            self.build_lib = str(ROOT / "build" / "inplace")
        if self.build_temp is None:  # pip throws its own away; ninja compiles again what another torch or flag asks for
            self.build_temp = str(ROOT / "build" / "extension")
        super().finalize_options()

    def build_extension(self, ext) -> None:
        shared, self.build_temp = self.build_temp, os.path.join(self.build_temp, ext.name)
        super().build_extension(ext)  # objects of its own: both compile the ops' glue, with other macros
        self.build_temp = shared

    def run(self) -> None:
        super().run()
        print(f"hiddennet: built _C (CPU) against torch {torch.__version__}")
        print(f"hiddennet: {'built' if CUDA else 'did not build'} _C_cuda: {WHY}")


CUDA, WHY = cuda_verdict()
setup(
    packages=[*find_packages(include=["hiddennet*"], exclude=["hiddennet.runtime*"]), "hiddennet.configs"],
    package_dir={"hiddennet.configs": "configs"},  # beside the code in a checkout, inside the package when installed
    package_data={
        "hiddennet": ["py.typed"],
        "hiddennet.configs": ["*.yml", "README.md", "*/*.yml", "*/*/*.yml", "*/*/*/*.yml", "*/*/*/*/*.yml"],
        "hiddennet.report": ["*.yml", "*.css"],
    },
    ext_modules=extensions(),
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
