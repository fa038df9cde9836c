#!/usr/bin/env python3
"""Hybrid encryption against the `tink` package from PyPI, in both directions.

    tink_interop.py generate OUT.json     write the vectors that the Rust tests decrypt
    tink_interop.py check IN.json...      decrypt vectors that the Rust code wrote

`check` decrypts every vector with its private keyset, and also encrypts once with the public keyset
and decrypts again, so that keysets written by Rust are proven as well. It exits with 1 when anything
differs. Needs `pip install tink==1.16.1`; reads and writes nothing but the paths it is given.
"""

import json
import sys

import tink
from tink import hybrid, secret_key_access
from tink.proto import tink_pb2

TEMPLATES = {
    "DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM": (
        hybrid.hybrid_key_templates.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM
    ),
    "ECIES_P256_HKDF_HMAC_SHA256_AES128_GCM": (
        hybrid.hybrid_key_templates.ECIES_P256_HKDF_HMAC_SHA256_AES128_GCM
    ),
}
CASES = [
    (b"", b""),
    (b"a requisition specification", b""),
    (b"a random seed", b"computation 7, worker1"),
    (bytes(range(256)) * 8, b"long plaintext"),
]


def read_private(serialized):
    return tink.proto_keyset_format.parse(serialized, secret_key_access.TOKEN)


def read_public(serialized):
    return tink.proto_keyset_format.parse_without_secret(serialized)


def write_private(handle):
    return tink.proto_keyset_format.serialize(handle, secret_key_access.TOKEN)


def write_public(handle):
    return tink.proto_keyset_format.serialize_without_secret(handle.public_keyset_handle())


def vector(name, template, private, plaintext, context, encrypt_with=None):
    handle = read_private(private)
    sender = (encrypt_with or handle).public_keyset_handle()
    ciphertext = sender.primitive(hybrid.HybridEncrypt).encrypt(plaintext, context)
    assert handle.primitive(hybrid.HybridDecrypt).decrypt(ciphertext, context) == plaintext
    return {
        "name": name,
        "template": template,
        "private_keyset": private.hex(),
        "public_keyset": write_public(handle).hex(),
        "context_info": context.hex(),
        "plaintext": plaintext.hex(),
        "ciphertext": ciphertext.hex(),
    }


def generate(path):
    vectors = []
    singles = {}
    for template, proto in TEMPLATES.items():
        handle = tink.new_keyset_handle(proto)
        singles[template] = handle
        private = write_private(handle)
        for number, (plaintext, context) in enumerate(CASES):
            vectors.append(vector(f"{template} {number}", template, private, plaintext, context))

    # One keyset with both keys: the primary encrypts, either decrypts by its key id.
    merged = tink_pb2.Keyset()
    for handle in singles.values():
        merged.MergeFrom(tink_pb2.Keyset.FromString(write_private(handle)))
    primary = list(singles.values())[0]
    merged.primary_key_id = tink_pb2.Keyset.FromString(write_private(primary)).primary_key_id
    for template, handle in singles.items():
        vectors.append(
            vector(f"two keys, {template}", template, merged.SerializeToString(), b"rotated", b"", handle)
        )
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"made_with": "PyPI tink 1.16.1", "vectors": vectors}, out, indent=1)
        out.write("\n")
    print(f"{path}: {len(vectors)} vectors written")


def check(path):
    with open(path, encoding="utf-8") as source:
        vectors = json.load(source)["vectors"]
    failures = 0
    for entry in vectors:
        context = bytes.fromhex(entry["context_info"])
        plaintext = bytes.fromhex(entry["plaintext"])
        try:
            decrypt = read_private(bytes.fromhex(entry["private_keyset"])).primitive(hybrid.HybridDecrypt)
            encrypt = read_public(bytes.fromhex(entry["public_keyset"])).primitive(hybrid.HybridEncrypt)
            if decrypt.decrypt(bytes.fromhex(entry["ciphertext"]), context) != plaintext:
                raise ValueError("the plaintext differs")
            if decrypt.decrypt(encrypt.encrypt(plaintext, context), context) != plaintext:
                raise ValueError("the keysets do not belong together")
        except (tink.TinkError, ValueError) as error:
            failures += 1
            print(f"{path}: {entry['name']}: {error}", file=sys.stderr)
    print(f"{path}: {len(vectors) - failures} passed, {failures} failed")
    return failures


def main(arguments):
    hybrid.register()
    if len(arguments) == 2 and arguments[0] == "generate":
        generate(arguments[1])
        return 0
    if len(arguments) >= 2 and arguments[0] == "check":
        return 1 if sum(check(path) for path in arguments[1:]) else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
