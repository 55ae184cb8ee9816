"""Writes the database of the tutorial's application, with hashes by the real passlib and Werkzeug, and prints tokens that
the real flask-jwt-extended made.

usage: JWT_SECRET_KEY=... database.py FILE
"""

import json
import os
import sqlite3
import sys

from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token, decode_token
from passlib.hash import pbkdf2_sha1, pbkdf2_sha256, pbkdf2_sha512
from werkzeug.security import generate_password_hash

PASSWORD = "correct horse battery"

app = Flask(__name__)
app.config["JWT_SECRET_KEY"] = os.environ["JWT_SECRET_KEY"]
JWTManager(app)

passlib = pbkdf2_sha256.hash(PASSWORD)
users = [
    ("alice", passlib),
    ("short", pbkdf2_sha256.hash("pw")),
    ("passlib512", pbkdf2_sha512.using(rounds=1000).hash(PASSWORD)),
    ("passlib1", pbkdf2_sha1.using(rounds=1000).hash(PASSWORD)),
    ("werkzeug", generate_password_hash(PASSWORD, "pbkdf2:sha256:600000")),
    ("werkzeug512", generate_password_hash(PASSWORD, "pbkdf2:sha512:1000")),
    ("werkzeug1", generate_password_hash(PASSWORD, "pbkdf2:sha1:1000")),
    ("scrypt", generate_password_hash(PASSWORD)),
    ("Ünal O'Neil", generate_password_hash(PASSWORD)),
    # Not usable:
    (" blank", passlib),
    ("esc\x1b[31m", passlib),
    ("twice", passlib),
    ("twice", pbkdf2_sha256.hash("another password")),
    ("plain", PASSWORD),
    ("bcrypt", "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW"),
    ("cut", passlib[:-1]),
    ("costly", passlib.replace("$29000$", "$2900000000$")),
    ("large", generate_password_hash(PASSWORD, "scrypt:1024:8:1").replace("1024:8:1", "1048576:8:1")),
    ("nothing", None),
    (None, passlib),
]

with app.app_context():
    tokens = {
        "live": create_access_token("alice"),
        "live_refresh": create_refresh_token("alice"),
        "revoked": create_access_token("alice"),
        "revoked_refresh": create_refresh_token("alice"),
    }
    revoked = [decode_token(tokens[name])["jti"] for name in ("revoked", "revoked_refresh")]

database = sqlite3.connect(sys.argv[1])
database.executescript(
    """
    CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, username VARCHAR(120), password VARCHAR(120));
    CREATE TABLE revoked_tokens (id INTEGER NOT NULL PRIMARY KEY, jti VARCHAR(120));
    """
)
database.executemany("INSERT INTO users (username, password) VALUES (?, ?)", users)
# One stands twice, and there is no rule against an empty one.
database.executemany("INSERT INTO revoked_tokens (jti) VALUES (?)", [(jti,) for jti in revoked + revoked[:1] + [None, ""]])
database.commit()
print(json.dumps(tokens))
