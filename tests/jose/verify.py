"""Verifies a token as a service would that knows only the address of the gateway's key set; prints its subject."""

import sys

import jwt

address, token = sys.argv[1:]
client = jwt.PyJWKClient(address)
key = client.get_signing_key_from_jwt(token)
claims = jwt.decode(token, key, algorithms=["EdDSA", "ES256", "RS256"])
assert key.key_id == jwt.get_unverified_header(token)["kid"]
assert all(known.public_key_use == "sig" for known in client.get_signing_keys())
print(claims["sub"])
