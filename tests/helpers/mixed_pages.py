"""Files of every kind for a batch: pictures, PDFs, and files that cannot be opened."""

from __future__ import annotations

from tests.helpers.stub_reader import CUT_OFF, GOOD, LOOPS, RAISES, page, save


def mixed(folder, count: int):
    """Pages as pictures and PDFs; some fail, loop or are cut off, and some files cannot be opened."""
    kinds = ([GOOD] * 5 + [LOOPS, RAISES, CUT_OFF]) * (count // 8 + 1)
    files = save(folder, kinds[: count // 2])
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "empty.pdf").write_bytes(b"%PDF-")
    files += [folder / "broken.png", folder / "empty.pdf", folder / "missing.jpg"]
    number = len(files) - 1
    while (left := count - number - 1) > 0:
        first, *rest = (page(GOOD, (number + i) % 256, (60, 80)) for i in range(min(25, left)))
        files.append(folder / f"scan{number}.pdf")
        first.save(files[-1], save_all=True, append_images=rest)
        number += 1 + len(rest)
    return files
