"""GDCM as the second opinion: frames that the first decoder refuses, as old writers left them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from negatoscope.dicom.pixels.codestream import Codestream
from negatoscope.dicom.pixels.describe import PixelDescription
from negatoscope.errors import PixelsUnreadable

Array = NDArray[Any]


def decode(data: bytes | bytearray | memoryview, description: PixelDescription, stream: Codestream) -> Array:
    """One frame, (rows, columns[, samples]) unsigned.

    Raises:
        PixelsUnreadable: GDCM cannot decode it either.
    """
    import gdcm  # 90 ms and 40 MB that most children never need

    syntax = gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(description.transfer_syntax_uid))
    allocated = 8 if stream.precision <= 8 else 16
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimension(0, description.columns)
    image.SetDimension(1, description.rows)
    image.SetTransferSyntax(syntax)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType(description.photometric))
    )
    image.SetPixelFormat(
        gdcm.PixelFormat(stream.samples, allocated, min(stream.precision, allocated), stream.precision - 1, 0)
    )
    image.SetPlanarConfiguration(0)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(bytes(data))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image.SetDataElement(element)
    text = image.GetBuffer()
    if text is None:
        raise PixelsUnreadable("neither decoder takes the frame")
    raw = text.encode("utf-8", "surrogateescape")
    shape = (description.rows, description.columns, stream.samples)
    count = shape[0] * shape[1] * shape[2]
    if len(raw) < count * allocated // 8:
        raise PixelsUnreadable("neither decoder takes the frame")
    cells = np.frombuffer(raw, f"<u{allocated // 8}", count)
    return cells.reshape(shape if stream.samples > 1 else shape[:2])
