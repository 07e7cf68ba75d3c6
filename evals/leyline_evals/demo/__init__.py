"""The recorded run that `leyline demo` replays, and the script that renews it."""
