"""Names: conda's dependencies in pip's words, and the package behind a missing module."""

from __future__ import annotations

import pytest

from runproj.environments.conda_names import NOT_PYTHON, RENAMED, translate
from runproj.environments.failures import explain_failure


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("numpy", "numpy"),
        ("numpy=1.14.3=py36_0", "numpy==1.14.3"),
        ("numpy 1.14.3 py36_0", "numpy==1.14.3"),
        ("numpy=1.14", "numpy==1.14.*"),
        ("numpy==1.14", "numpy==1.14"),
        ("numpy 1.14.*", "numpy==1.14.*"),
        ("numpy=1.14.*", "numpy==1.14.*"),
        ("numpy 1.14.3", "numpy==1.14.3"),
        ("numpy>=1", "numpy>=1"),
        ("numpy >=1.2, <2", "numpy>=1.2,<2"),
        ("numpy>=1.2.*", "numpy>=1.2"),
        ("numpy >=1.2 py_0", "numpy>=1.2"),
        ("numpy *", "numpy"),
        ("numpy=*", "numpy"),
        ("numpy 1.2|1.3", "numpy==1.3"),
        ("numpy=1.2=*mkl*", "numpy==1.2"),
        ("numpy[version='>=2,<3',build=py*]", "numpy>=2,<3"),
        ("conda-forge::numpy", "numpy"),
        ("conda-forge/linux-64::numpy=1.2", "numpy==1.2.*"),
        ("NumPy", "numpy"),
        ("pytorch=1.4", "torch==1.4.*"),
        ("opencv", "opencv-python"),
        ("py-xgboost==0.90", "xgboost==0.90"),
        ("matplotlib-base", "matplotlib"),
        ("pytables", "tables"),
        ("mlflow", "mlflow"),
        ("ruamel_yaml", "ruamel.yaml"),
        ("librosa", "librosa"),
        ("pip", "pip"),
    ],
)
def test_a_dependency_of_condas_is_one_of_pips(conda: str, pip: str) -> None:
    assert translate((conda,)).requirements == (pip,)


def test_the_interpreter_is_taken_out() -> None:
    for text, python in (
        ("python=3.8.2", "3.8.2"),
        ("python 3.7.*", "3.7"),
        ("python>=3.6,<3.9", ">=3.6,<3.9"),
        ("python", None),
    ):
        mapped = translate((text,))
        assert (mapped.python, mapped.requirements, mapped.notes) == (python, (), ())


def test_what_is_no_python_package_is_left_out_and_named() -> None:
    mapped = translate(("cudatoolkit=10.1", "numpy", "libgcc", "r-base", "mkl", "_py-xgboost-mutex", "pytorch"))
    assert mapped.requirements == ("numpy", "torch")
    assert "pytorch → torch" in mapped.notes[0]
    assert "cudatoolkit=10.1, libgcc, r-base, mkl" in mapped.notes[1]


def test_no_name_is_both() -> None:
    assert not NOT_PYTHON & set(RENAMED)
    assert len(RENAMED) >= 60


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("yaml", "--with PyYAML"),
        ("sklearn.linear_model", "--with scikit-learn"),
        ("cv2", "--with opencv-python"),
        ("PIL", "--with Pillow"),
        ("mlflow", "--with mlflow"),
        ("google.cloud.storage", "--with google-cloud-storage"),
        ("some_thing.inner", "--with some-thing"),
        ("pkg_resources", "--with 'setuptools<81'"),
        ("pkg_resources.extern", "--with 'setuptools<81'"),
    ],
)
def test_a_missing_module_is_explained_by_its_package(module: str, advice: str) -> None:
    said = f"Traceback (most recent call last):\n  File \"x.py\", line 1\nModuleNotFoundError: No module named '{module}'\n"
    assert advice in (explain_failure(said) or "")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ImportError: No module named yaml", "--with PyYAML"),
        ("TypeError: Descriptors cannot not be created directly.\nIf this call came from a _pb2.py file", "--with 'protobuf<4'"),
        ("TypeError: Descriptors cannot be created directly.", "--with 'protobuf<4'"),
        ("AttributeError: module 'numpy' has no attribute 'float'.", "--with 'numpy<1.24'"),
        ("ValueError: numpy.dtype size changed, may indicate binary incompatibility.", "--with 'numpy<2'"),
        ("AttributeError: `np.float_` was removed in the NumPy 2.0 release.", "--with 'numpy<2'"),
        ("AttributeError: 'DataFrame' object has no attribute 'append'", "--with 'pandas<2'"),
        ("ImportError: cannot import name 'escape' from 'jinja2'", "--with 'jinja2<3.1'"),
        ("ImportError: cannot import name 'Mapping' from 'collections'", "--as-of commit"),
        ("ModuleNotFoundError: No module named 'sklearn.externals.joblib'", "--with 'scikit-learn<0.23'"),
        ("AttributeError: module 'tensorflow' has no attribute 'placeholder'", "--with 'tensorflow<2'"),
    ],
)
def test_a_known_break_is_explained_by_the_command_that_helps(said: str, advice: str) -> None:
    assert advice in (explain_failure(said) or "")


@pytest.mark.parametrize(
    "said", ["", "ValueError: bad luck", "No module to speak of", "AttributeError: module 'numpy' has no attribute 'flot'"]
)
def test_a_failure_of_another_kind_is_left_alone(said: str) -> None:
    assert explain_failure(said) is None
