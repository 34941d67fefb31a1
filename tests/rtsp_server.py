"""A real RTSP camera on 127.0.0.1 for tests: a moving ball at 25 frames a second.

Run it with the system's Python (Debian: python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-base, -good, -bad
and -ugly):

    python3 rtsp_server.py [WIDTHxHEIGHT [USER:PASSWORD [PORT [udp]]]]

With "udp" it refuses to send its pictures over TCP. It prints the port that it listens on. Tests send KILL, STOP and
CONT to simulate faults. If a part of GStreamer is missing, it prints which one and exits with 77.
"""

import sys

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
except (ImportError, ValueError) as error:
    sys.stdout.write(f"{error}\n")
    sys.exit(77)


def main(size: str = "320x240", login: str = "", port: str = "0", transport: str = "") -> None:
    Gst.init(None)
    missing = [name for name in ("videotestsrc", "x264enc", "rtph264pay") if not Gst.ElementFactory.find(name)]
    if missing:
        sys.stdout.write(f"GStreamer has no {' '.join(missing)}\n")
        sys.exit(77)

    width, height = size.split("x")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(
        "( videotestsrc is-live=true pattern=ball"
        f" ! video/x-raw,width={width},height={height},framerate=25/1"
        " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25"
        " ! rtph264pay config-interval=1 name=pay0 pt=96 )"
    )
    if transport == "udp":
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)  # 0: any free one
    if login:
        server.set_auth(ask_for(login, factory))
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


def ask_for(login: str, factory: "GstRtspServer.RTSPMediaFactory") -> "GstRtspServer.RTSPAuth":
    """Allow only this user to see the stream of the factory."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login.split(":")), token)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role("user")
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)
    return auth


if __name__ == "__main__":
    main(*sys.argv[1:])
