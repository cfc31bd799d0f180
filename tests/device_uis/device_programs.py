"""How each real UI is set up: with a login, without its calls home, and otherwise as it comes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.device_uis.programs import Program, installed, node_path

USER, PASSWORD = "operator", "correct-horse-7"
_HERE = Path(__file__).resolve().parent
_SETUP_S = 60.0


def node_red(folder: Path) -> Program:
    """Node-RED 4 with a login; no palette catalogue and no tour, which live on the internet."""
    program = Program("node-red", folder)
    home = installed("node-red")
    hashed = subprocess.run(
        [node_path(), "-e", f"console.log(require('bcryptjs').hashSync({json.dumps(PASSWORD)}, 4))"],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=_SETUP_S,
        check=True,
    ).stdout.strip()
    settings = {
        "uiHost": "127.0.0.1",
        "uiPort": program.port,
        "flowFile": "flows.json",
        "credentialSecret": "of a test",
        "httpStatic": str(folder / "static"),
        "httpStaticRoot": "/static/",
        "adminAuth": {
            "type": "credentials",
            "users": [{"username": USER, "password": hashed, "permissions": "*"}],
        },
        "externalModules": {"palette": {"allowInstall": False}},
        "telemetry": {"enabled": False, "updateNotification": False},
        "editorTheme": {"tours": False},
    }
    (folder / "static").mkdir()
    (folder / "settings.js").write_text(f"module.exports = {json.dumps(settings, indent=2)};\n")
    program.start([node_path(), str(home / "node_modules/node-red/red.js"), "--userDir", str(folder)])
    return program


# Plugins that call home or ask a newcomer; the printer is OctoPrint's own virtual one.
_OCTOPRINT_CONFIG = """\
server:
  firstRun: false
  onlineCheck: {enabled: false}
  pluginBlacklist: {enabled: false}
plugins:
  _disabled: [announcements, discovery, tracking, softwareupdate, pluginmanager, health_check, firmware_check,
    file_check, errortracking, pi_support]
  virtual_printer: {enabled: true}
gcodeAnalysis: {runAt: never}
serial: {port: VIRTUAL, autoconnect: true}
"""


def octoprint(folder: Path) -> Program:
    """OctoPrint with its virtual printer connected and one admin."""
    program = Program("octoprint", folder)
    command = [str(installed("octoprint") / "bin/octoprint"), "--basedir", str(folder / "base")]
    (folder / "base").mkdir()
    (folder / "base" / "config.yaml").write_text(_OCTOPRINT_CONFIG)
    subprocess.run(
        [*command, "user", "add", "--admin", "--password", PASSWORD, USER],
        capture_output=True,
        timeout=_SETUP_S,
        check=True,
    )
    # As root in a test machine it must be told that this is meant.
    serve = ["serve", "--iknowwhatimdoing", "--host", "127.0.0.1", "--port", str(program.port)]
    program.start([*command, *serve])
    return program


def notebook(folder: Path) -> Program:
    """A notebook server that answers only to a local Host, with a password and its web terminal."""
    program = Program("notebook", folder)
    home = installed("notebook")
    files = folder / "files"
    files.mkdir()
    config = {
        "ServerApp": {
            "ip": "127.0.0.1",
            "port": program.port,
            "root_dir": str(files),
            "allow_root": True,
            "terminado_settings": {"shell_command": ["/bin/sh"]},
        },
        "IdentityProvider": {"token": PASSWORD},
    }
    (folder / "config.json").write_text(json.dumps(config))
    argv = [
        str(home / "bin/python"),
        "-m",
        "nbclassic",
        "--no-browser",
        "--config",
        str(folder / "config.json"),
    ]
    program.start(argv, PATH=f"{home / 'bin'}:/usr/bin:/bin")
    return program


def dashboard(folder: Path) -> Program:
    """A Streamlit app, whose WebSocket wants an Origin that equals Host."""
    program = Program("dashboard", folder)
    home = installed("dashboard")
    options = {
        "server.address": "127.0.0.1",
        "server.port": str(program.port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    app = str(_HERE / "boiler_dashboard.py")
    program.start([str(home / "bin/python"), "-m", "streamlit", "run", app, *arguments])
    return program
