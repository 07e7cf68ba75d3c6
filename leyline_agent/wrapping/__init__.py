"""What `leyline.wrap` is made of: scopes, pools of sessions, streams, patched libraries."""
