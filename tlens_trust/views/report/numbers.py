"""The numbers of a trace, within a page, as a file to download."""

import base64
import gzip

from tlens_trust.tracing import Trace


def packed_csv(trace: Trace) -> tuple[str, int]:
    """The tidy table of a trace as gzipped CSV in base64, and its number of rows.

    What is the same in all rows, such as the number of statements of the only concept, stays.
    Numbers are written with six significant digits.
    """
    frame = trace.to_frame()
    text = frame.to_csv(index=False, float_format="%.6g")
    # Without a time in it, the same trace gives the same bytes.
    packed = gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii"), len(frame)
