"""The commands that prepare a deployment: `matchday setup`, `matchday secrets ...`.

Turns arguments into one call each; what is prepared is in `services`. A command of the
top level is `@deploy.command`; those of a group are `@secrets.command`. A group that has
no command yet does not appear in `--help`.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from matchday.cli_options import AsJson, ConfigFile, load_settings
from matchday.clock import SystemClock

deploy = cyclopts.App()
secrets = cyclopts.App(name="secrets", help="Make and show the passwords of a deployment.")

SecretsFolder = Annotated[Path, Parameter(name="--dir", help="Folder of the secrets.")]


@deploy.command
def setup(
    *,
    browser_writes: Annotated[bool | None, Parameter(negative=())] = None,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make MongoDB and Kafka ready: replica set, users, rights, collections, topics.

    Safe to repeat: it does what lacks. Uses the administrators' logins in stream.url and
    store.url; without setup.accounts_file it makes topics and collections only.

    Parameters
    ----------
    browser_writes
        Let the database browser's user change documents, too.
    """
    from matchday.services.setup import setup as run_setup

    settings = load_settings(config, setup__browser_writes=browser_writes).settings
    run_setup(settings, as_json=json, clock=SystemClock(), rng=random.Random())


@secrets.command(name="create")
def secrets_create(
    *,
    directory: SecretsFolder,
    kafka_host: str = "",
    stream_url_file: str = "",
    store_url_file: str = "",
    config: ConfigFile = None,
) -> None:
    """Make the passwords that are missing, and every service's files from them.

    Run again it changes nothing, or only what follows from other options. An option given
    as "" counts as not given. As root it hands each folder to its service's user.

    Parameters
    ----------
    kafka_host
        Name of the Kafka container; default kafka.
    stream_url_file
        File with the address of a Kafka of your own, kafka://...; empty for none.
    store_url_file
        File with the address of a MongoDB of your own, mongodb://...; empty for none.
    """
    from matchday.services import secrets as service
    from matchday.services.secret_files import Addresses

    load_settings(config)
    addresses = Addresses(
        kafka_host=kafka_host or "kafka",
        stream_url=service.read_stream_url(stream_url_file),
        store_url=service.read_store_url(store_url_file),
    )
    service.create(directory, addresses)


@secrets.command(name="add-sensor")
def secrets_add_sensor(
    venue: str, /, *, directory: SecretsFolder, config: ConfigFile = None
) -> None:
    """Let the sensors of one more venue log in at the broker; print their password.

    They log in as the venue and may publish below matchday/VENUE/ only.

    Parameters
    ----------
    venue
        Name of the venue, as in its topics.
    """
    from matchday.services import secrets as service

    load_settings(config)
    password = service.add_sensor(directory, venue)
    print(password)  # noqa: T201
    print(  # noqa: T201
        f"matchday: the broker knows {venue!r} once it reads its files again:"
        " docker compose kill -s HUP mosquitto",
        file=sys.stderr,
    )


@secrets.command(name="rotate")
def secrets_rotate(name: str, /, *, directory: SecretsFolder, config: ConfigFile = None) -> None:
    """Replace one password by a new one.

    It is in force once everything that uses it has started again, after `secrets create`.

    Parameters
    ----------
    name
        As `secrets show` lists it, such as page-token, kafka-server or mqtt-demo.
    """
    from matchday.services import secrets as service

    load_settings(config)
    service.rotate(directory, name)
    print(  # noqa: T201
        f"matchday: {name} is replaced and in force once all has started again:"
        " docker compose up -d --wait --force-recreate",
        file=sys.stderr,
    )


@secrets.command(name="show")
def secrets_show(
    name: str | None = None, /, *, directory: SecretsFolder, config: ConfigFile = None
) -> None:
    """Print one password, or the names of all.

    Parameters
    ----------
    name
        Such as page-token, web-password (of mongo-express) or mqtt-demo; default: list
        the names.
    """
    from matchday.services import secrets as service

    load_settings(config)
    shown = service.names(directory) if name is None else [service.reveal(directory, name)]
    print("\n".join(shown))  # noqa: T201
