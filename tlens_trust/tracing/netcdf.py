"""Data sets as NetCDF files that are read back exactly as they were.

NetCDF attributes are texts and numbers. Any other value (None, a truth value, a list) is written as
JSON, and the attribute `json_encoded` lists the names of such attributes. Numbers are written as
JSON too, since NetCDF would read them back as arrays.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xarray as xr

_JSON = "json_encoded"
# Variables of more bytes are compressed, which reduces the trace of a long sweep to a third.
_LARGE = 2**20
# The NetCDF library may be called by one thread at a time.
_LOCK = threading.Lock()


def dataset_to_bytes(data: xr.Dataset) -> bytes:
    """Encode a data set as a NetCDF 4 file.

    Raises:
        ValueError: A text holds a NUL character or half of a surrogate pair, or JSON cannot hold
            an attribute.
    """
    # xarray would else write a variable as the file that it came from was written.
    encoded = data.copy().drop_encoding()
    encoded.attrs = _encode_attributes(data.attrs)
    for name, variable in encoded.variables.items():
        variable.attrs = _encode_attributes(data[name].attrs)
        if variable.dtype.kind in "UO":
            for text in variable.values.ravel().tolist():
                check_text(text, f"a value of {name!r}")
    # Shuffling puts bytes of equal weight next to each other, which compresses numbers better.
    encoding = {
        name: {"zlib": True, "complevel": 1, "shuffle": True}
        for name, variable in encoded.variables.items()
        if variable.dtype.kind in "fiu" and variable.ndim and variable.nbytes > _LARGE
    }
    # NetCDF would pad a file that it makes in memory to the next power of two.
    with TemporaryDirectory() as folder, _LOCK:
        path = Path(folder, "data.nc")
        encoded.to_netcdf(path, engine="netcdf4", encoding=encoding)
        return path.read_bytes()


def dataset_from_bytes(content: bytes, *, variables: Sequence[str] | None = None) -> xr.Dataset:
    """Decode a file that `dataset_to_bytes` encoded.

    Args:
        content: The content of the file.
        variables: Names of the variables to decode, with the coordinates along their axes. A name
            that is missing is ignored. None for all.

    Raises:
        ValueError: The bytes are not a complete NetCDF file.
    """
    try:
        # xarray would turn numbers in seconds into time spans.
        with (
            _LOCK,
            xr.open_dataset(
                content, engine="netcdf4", decode_times=False, decode_timedelta=False
            ) as file,
        ):
            if variables is not None:
                file = file[[name for name in variables if name in file]]
            # The file is closed after the `with`, so that no value may be left to be read later.
            data = file.load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        # The library raises any of these, depending on where a file is torn.
        raise ValueError(f"It is no NetCDF file, or was torn or altered: {error}") from error
    data = data.drop_encoding()
    data.attrs = _decode_attributes(data.attrs)
    for name in data.variables:
        data[name].attrs = _decode_attributes(data[name].attrs)
    return data


def check_text(text: object, description: str) -> None:
    """Refuse a text that cannot be written to a file and read back unchanged.

    Raises:
        ValueError: The text holds a NUL character or half of a surrogate pair.
    """
    if isinstance(text, str) and not _is_writable(text):
        raise ValueError(
            f"{description} must be a text that a file can hold, got {text!r}, with a NUL "
            "character or a broken Unicode pair in it. Rename it."
        )


def _is_writable(text: str) -> bool:
    # The library loses a NUL and what follows it. UTF-8 has no half of a surrogate pair.
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _encode_attributes(attributes: Any) -> dict[str, str]:
    encoded, names = {}, []
    for name, value in attributes.items():
        if isinstance(value, str) and _is_writable(value):
            encoded[name] = value
            continue
        try:
            # JSON knows no numbers of numpy. `item` gives those of Python.
            encoded[name] = json.dumps(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError):
            raise ValueError(
                f"The attribute {name!r} must be a text, a number, a truth value, None, or lists "
                f"and mappings of these, got {value!r} of type {type(value).__name__}."
            ) from None
        names.append(name)
    if names:
        encoded[_JSON] = json.dumps(names)
    return encoded


def _decode_attributes(attributes: Any) -> dict[str, Any]:
    names = json.loads(attributes.get(_JSON, "[]"))
    return {
        str(name): json.loads(value) if name in names else value
        for name, value in attributes.items()
        if name != _JSON
    }
