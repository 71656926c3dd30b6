"""Installation. Editable only: pip install -e .[dev]

`datasets`, `models` and `utils` are generic names that other distributions use too. Installed into site-packages they
would overwrite, or be hidden by, packages of the same name; in an editable checkout `runs/run.py` and the tests put
the checkout first on sys.path, so the names always mean this project.
"""

from setuptools import Command, find_packages, setup

REASON = (
    "CLIP-FSAR installs in editable mode only: pip install -e .\n"
    "Its packages are called datasets, models, runs and utils; copied into site-packages they would collide with other "
    "distributions of those names. In a checkout, runs/run.py puts the checkout first on sys.path."
)


class Refuse(Command):
    """Stands for the commands that would copy the packages."""

    description = "refuse anything but an editable installation"
    user_options: list = []
    dist_info_dir = None

    def initialize_options(self):
        """Nothing to set."""

    def finalize_options(self):
        """Nothing to set."""

    def run(self):
        """Stop with the reason."""
        raise SystemExit(REASON)


EXPORT = ["onnx", "onnxscript", "onnxruntime"]

setup(
    name="clip-fsar",
    version="0.1.0",
    description="CLIP-guided prototype modulating for few-shot action recognition: a faithful re-implementation",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["datasets*", "models*", "runs*", "utils*"]),
    entry_points={"console_scripts": ["clip-fsar = runs.clip_fsar:start"]},
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "open_clip_torch>=2.24",
        "decord>=0.6.0; platform_machine == 'x86_64' or platform_machine == 'AMD64'",
        "av>=14.2",
        "numpy",
        "pillow",
        "simplejpeg",
        "einops",
        "pyyaml",
        "simplejson",
        "tqdm",
        "pandas",
        "tabulate",
        "psutil",
        "fvcore",
        "tensorboard",
        "matplotlib",
        "safetensors",
        "scipy",
        "pyarrow",
        "jinja2>=3.1",
        "markupsafe",
        "urllib3>=2.2",
        "starlette>=1.5.1",  # earlier ones have known holes in what a page of videos needs: byte ranges
        "uvicorn",
    ],
    extras_require={"torchcodec": ["torchcodec"],  # needs FFmpeg's shared libraries, too
                    "export": EXPORT,
                    "dev": [*EXPORT, "torchcodec", "pytest>=8", "pytest-timeout", "pytest-xdist>=3.7", "hypothesis",
                            "ruff", "pylint", "mypy>=1.14", "pandas-stubs", "types-psutil", "types-PyYAML",
                            "types-simplejson", "types-tqdm", "selenium>=4.6", "setuptools>=64", "wheel"]},
    cmdclass={"install": Refuse, "sdist": Refuse},
)
