"""The tutorial's own way: a Flask application that checks each token and looks its id up in a table of revoked ones.

It is the backend itself, so it forwards nothing. The look-up is plain sqlite3, cheaper than the tutorial's SQLAlchemy.
"""

import os
import sqlite3

from flask import Flask
from flask_jwt_extended import JWTManager, jwt_required

app = Flask(__name__)
app.config["JWT_SECRET_KEY"] = os.environ["JWT_SECRET_KEY"]
blocklist = sqlite3.connect(os.environ["BLOCKLIST"], check_same_thread=False)
jwt = JWTManager(app)


@jwt.token_in_blocklist_loader
def is_revoked(_header, claims):
    return blocklist.execute("SELECT 1 FROM revoked_tokens WHERE jti = ?", (claims["jti"],)).fetchone() is not None


@app.get("/secret")
@jwt_required()
def secret():
    return {"answer": 42}
