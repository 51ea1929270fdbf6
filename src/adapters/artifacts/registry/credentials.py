"""Logins for registries, where `docker login` and `podman login` leave them."""

import base64
import json
import logging
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ....domain.image_reference import ImageReference

log = logging.getLogger(__name__)

_HUB_KEY = "https://index.docker.io/v1/"
_HELPER_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HELPER_S = 20.0
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers call a login that is an identity token


@dataclass(frozen=True, slots=True)
class Login:
    """A user and password, or an identity token that buys access tokens."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __bool__(self) -> bool:
        return bool(self.user or self.identity_token)

    @property
    def basic(self) -> str:
        """The value of a basic `Authorization` header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


ANONYMOUS = Login()


@dataclass(frozen=True)
class DockerLogins:
    """Reads logins as docker does, anew for each fetch: somebody may have logged in meanwhile.

    `$DOCKER_CONFIG/config.json` (default `~/.docker`), with its credential helpers; without that file
    `$REGISTRY_AUTH_FILE`, then `$XDG_RUNTIME_DIR/containers/auth.json`. A repository's own login goes
    before its registry's. What cannot be read is told and counts as absent.
    Source: go-containerregistry pkg/authn/keychain.go.
    """

    environment: Mapping[str, str]

    def of(self, reference: ImageReference) -> Login:
        """The login for an image; blocks while a helper runs."""
        config = self._config()
        keys = _keys(reference)
        helpers = _mapping(config.get("credHelpers"))
        for key in keys:
            if helper := helpers.get(key):
                return self._ask(str(helper), key)
        store = config.get("credsStore")
        if store and (login := self._ask(str(store), keys[-1])):
            return login
        auths = _mapping(config.get("auths"))
        by_name = {_plain_key(name): entry for name, entry in auths.items()}
        for key in keys:
            entry = auths.get(key, by_name.get(_plain_key(key)))
            if entry is not None:
                return _login(_mapping(entry), key)
        return ANONYMOUS

    def remedy(self, reference: ImageReference, login: Login) -> str:
        """What may help where a registry refuses `login`: where logins are looked for, and what makes one."""
        paths = self._paths()
        read = next((path for path in paths if path.is_file()), None)
        if read is not None:
            where = str(read)
        else:
            where = ", ".join(map(str, paths)) or "$HOME/.docker/config.json, and HOME is not set"
            where += " (no such file)" if paths else ""
        found = "the login is from" if login else f"there is no login for {reference.host} in"
        command = "docker login" + ("" if reference.is_on_hub else f" {reference.host}")
        return f"{found} {where}; `{command}` as the user of this worker makes a new one"

    def _config(self) -> Mapping[str, object]:
        for path in self._paths():
            if path.is_file():
                try:
                    return _mapping(json.loads(path.read_bytes()))
                except (OSError, ValueError, RecursionError) as error:
                    log.warning("registry logins are unreadable: file=%s error=%s", path, error)
                    return {}
        return {}

    def _paths(self) -> list[Path]:
        home = self.environment.get("HOME")
        docker = self.environment.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
        runtime = self.environment.get("XDG_RUNTIME_DIR")
        named = [
            f"{docker}/config.json" if docker else "",
            self.environment.get("REGISTRY_AUTH_FILE", ""),
            f"{runtime}/containers/auth.json" if runtime else "",
        ]
        return [Path(name) for name in named if name]

    def _ask(self, helper: str, key: str) -> Login:
        """What `docker-credential-<helper> get` says about `key`."""
        if not _HELPER_NAME.fullmatch(helper):
            log.warning("credential helper ignored: name=%r", helper)
            return ANONYMOUS
        program = f"docker-credential-{helper}"
        try:
            ran = subprocess.run(
                [program, "get"],
                input=key.encode(),
                capture_output=True,
                timeout=_HELPER_S,
                check=False,
                env=dict(self.environment),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("credential helper failed: program=%s error=%s", program, error)
            return ANONYMOUS
        if ran.returncode:  # "credentials not found" is the ordinary case
            log.debug("credential helper knows nothing: program=%s registry=%s", program, key)
            return ANONYMOUS
        try:
            answer = _mapping(json.loads(ran.stdout))
        except ValueError:
            log.warning("credential helper answers no JSON: program=%s", program)
            return ANONYMOUS
        user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
        return Login(identity_token=secret) if user == _TOKEN_USER else Login(user, secret)


def _keys(reference: ImageReference) -> list[str]:
    """What a config may call the image: its repository and the parents of that, then its registry."""
    parts = reference.repository.split("/")
    below = [f"{reference.host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
    return [*below, reference.host, *([_HUB_KEY] if reference.is_on_hub else [])]


def _plain_key(key: str) -> str:
    """A key without scheme and the version paths that old clients wrote."""
    plain = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    return plain.removesuffix("/v1").removesuffix("/v2")


def _login(entry: Mapping[str, object], key: str) -> Login:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Login(identity_token=token)
    encoded = entry.get("auth")
    if isinstance(encoded, str) and encoded:
        try:
            user, colon, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            colon = ""
        if not colon:
            log.warning("registry login is unreadable: registry=%s field=auth", key)
            return ANONYMOUS
        return Login(user, password.rstrip("\0"))
    return Login(str(entry.get("username", "")), str(entry.get("password", "")))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
