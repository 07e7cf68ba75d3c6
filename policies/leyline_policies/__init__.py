"""The policy space: one short file a policy, found through the `leyline.policies` entry points."""
