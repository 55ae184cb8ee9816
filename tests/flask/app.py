"""The tutorial's application, reduced to its tokens: a real flask-jwt-extended to compare the gateway with.

usage: JWT_SECRET_KEY=... app.py PORT
"""

import os
import sys

from flask import Flask, jsonify, request
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token, get_jwt, get_jwt_identity, jwt_required

app = Flask(__name__)
app.config["JWT_SECRET_KEY"] = os.environ["JWT_SECRET_KEY"]
jwt = JWTManager(app)
users = {}
revoked = set()


@jwt.token_in_blocklist_loader
def is_revoked(_header, payload):
    return payload["jti"] in revoked


def pair(name, message):
    return jsonify(message=message, access_token=create_access_token(name), refresh_token=create_refresh_token(name))


@app.get("/")
def index():
    return "Hello, World!"


@app.post("/registration")
def registration():
    data = request.get_json()
    if data["username"] in users:
        return {"message": f"User {data['username']} already exists"}
    users[data["username"]] = data["password"]
    return pair(data["username"], f"User {data['username']} was created")


@app.post("/login")
def login():
    data = request.get_json()
    if data["username"] not in users:
        return {"message": f"User {data['username']} doesn't exist"}
    if users[data["username"]] != data["password"]:
        return {"message": "Wrong credentials"}
    return pair(data["username"], f"Logged in as {data['username']}")


@app.post("/token/refresh")
@jwt_required(refresh=True)
def refresh():
    return {"access_token": create_access_token(get_jwt_identity())}


@app.post("/logout/access")
@jwt_required()
def logout_access():
    revoked.add(get_jwt()["jti"])
    return {"message": "Access token has been revoked"}


@app.post("/logout/refresh")
@jwt_required(refresh=True)
def logout_refresh():
    revoked.add(get_jwt()["jti"])
    return {"message": "Refresh token has been revoked"}


@app.get("/secret")
@jwt_required()
def secret():
    return {"answer": 42, "sub": get_jwt_identity(), "claims": sorted(get_jwt())}


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), threaded=True)
