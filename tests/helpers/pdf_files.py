"""PDFs for tests: of blank pages, and encrypted."""

from __future__ import annotations

import hashlib
import struct

import pypdfium2


def make_pdf(path, sizes=((200, 100),), **save):
    pdf = pypdfium2.PdfDocument.new()
    for width, height in sizes:
        pdf.new_page(width, height)
    pdf.save(path, **save)
    pdf.close()
    return path


def rc4(key, data):
    s, j, out = list(range(256)), 0, bytearray()
    for i in range(256):
        j = (j + s[i] + key[i % len(key)]) & 255
        s[i], s[j] = s[j], s[i]
    i = j = 0
    for byte in data:
        i = (i + 1) & 255
        j = (j + s[i]) & 255
        s[i], s[j] = s[j], s[i]
        out.append(byte ^ s[(s[i] + s[j]) & 255])
    return bytes(out)


def make_encrypted_pdf(path, password):
    """The smallest PDF with the standard security handler, revision 2 (40-bit RC4; PDF 1.7, 7.6.3)."""
    filler = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    padded, permissions, file_id = (password.encode() + filler)[:32], -4, b"0123456789abcdef"
    owner = rc4(hashlib.md5(padded).digest()[:5], padded)
    key = hashlib.md5(padded + owner + struct.pack("<i", permissions) + file_id).digest()[:5]
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>",
        f"<</Filter/Standard/V 1/R 2/P {permissions}/O<{owner.hex()}>/U<{rc4(key, filler).hex()}>>>",
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj{content}endobj\n".encode()
    xref = "xref\n0 5\n0000000000 65535 f \n" + "".join(f"{o:010d} 00000 n \n" for o in offsets)
    trailer = f"trailer<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[<{file_id.hex()}><{file_id.hex()}>]>>"
    path.write_bytes(data + f"{xref}{trailer}\nstartxref\n{len(data)}\n%%EOF".encode())
    return path
