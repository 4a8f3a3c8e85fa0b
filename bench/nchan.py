"""Runs nginx with the module nchan, next to which we are measured: a free port, a directory of its own."""

from __future__ import annotations

from pathlib import Path

from tests.support.servers import ServerProcess, ask, free_port

# From Debian's libnginx-mod-nchan.
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

# One process, as `encke serve` is one. Without limits where encke has none.
_CONFIG = """
load_module {module};
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 19900; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    nchan_shared_memory_size 512M;
    nchan_store_messages off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /sub {{ nchan_subscriber websocket; nchan_channel_id {channel}; }}
        location /1/admin/push/ {{ nchan_publisher http; nchan_channel_id {channel}; }}
    }}
}}
"""


class Nchan(ServerProcess):
    """nginx with the module nchan; stores nothing.

    Subscribers come by WebSocket and pushes by POST, at the paths that they have at `encke`.
    """

    def __init__(self, directory: Path, channel: str) -> None:
        """Prepare it.

        Args:
            channel: whose subscribers get a push, in nginx's words: "$arg_key", or one for all.
        """
        if not NCHAN.exists():
            raise SystemExit(f"this measurement needs {NCHAN}; see bench/README.md")
        directory.mkdir()
        self.port = free_port()
        config = directory / "nginx.conf"
        config.write_text(_CONFIG.format(module=NCHAN, directory=directory, port=self.port, channel=channel))
        command = ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(config)]
        super().__init__(command, directory, lambda: ask(self.port, b"GET / HTTP/1.0\r\n\r\n") != b"")
