"""What the `pluralllm deploy` commands print."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pluralllm_app.core.terminal import Terminal

if TYPE_CHECKING:
    from cryptography import x509

    from pluralllm_app.deploy.layout import Deployment


def slug_of(name: str, groups: dict[str, str], directory: Path) -> str:
    """The slug of a group of a deployment; raises UserError where it has no such group."""
    from pluralllm_app.core.names import clean_text
    from pluralllm_app.core.suggestions import did_you_mean
    from pluralllm_app.errors import UserError

    for slug, known in groups.items():
        if known == clean_text(name):
            return slug
    raise UserError(f"no group {name!r} in {directory}: {did_you_mean(name, groups.values())}")


def say(line: str) -> None:
    """Print a line as it is."""
    Terminal().print(line, markup=False, highlight=False, soft_wrap=True)


def describe(deployment: "Deployment") -> None:
    """Print what `init` made, and what to do next."""
    from pluralllm_app.deploy.invitation import INVITATION, certificate_fingerprint
    from pluralllm_app.deploy.keys import server_names

    path, place = deployment.path, shlex.quote(str(deployment.path))
    say(f"{path}: the server's side of a federation, and {INVITATION} for its groups\n")
    about = deployment.questionnaire.questionnaire().about
    say(f"questionnaire: {about.survey}, fingerprint {about.fingerprint[:12]}")
    for what, made in (("authority", deployment.authority), ("server", deployment.server)):
        say(f"{what}: {validity(made.certificate)}")
    say(
        f"fingerprint of the authority: {certificate_fingerprint(deployment.authority.certificate)}"
    )
    say(f"server is known as: {', '.join(server_names(path / 'server' / 'server.crt'))}")
    say(
        f"""
Next:
  start the SuperLink       {shlex.quote(f"{path}/server/start.sh")}
  to each group             {path / INVITATION}
  on its machine            pluralllm deploy join {INVITATION} --site SITE --out NODE
  for each request of one   pluralllm deploy admit {place} request.json
  train, here               pluralllm deploy run {place}

Other machines reach nothing of the SuperLink but what nodes need. Let the firewall open its port
to the addresses of the nodes only. Whoever may log in on this machine may submit runs, that is
code for this machine, and settings for all nodes. Move {path}/ca/ca.key to a safe place:
`pluralllm deploy renew` alone needs it."""
    )


def validity(certificate: "x509.Certificate") -> str:
    """Who a certificate is of, and from when to when it is valid."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return f"{certificate.subject.rfc4514_string()}, valid {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
