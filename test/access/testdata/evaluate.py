"""Decides with oslo.policy itself.

Standard input: {"rules": {name: expression}, "questions": [[rule, target, caller], …]}.
Standard output: a character for each question, + or -.

oslo.policy leaves field: and the owner of the parent to Neutron; here targets
carry what those need: "network:project_id" is a key of the target, and field:
compares with the attribute as a text.
"""

import json
import sys

from oslo_config import cfg
from oslo_policy import policy


@policy.register("field")
class Field(policy._checks.Check):
    def __call__(self, target, creds, enforcer, current_rule=None):
        _, _, rest = self.match.partition(":")
        name, _, want = rest.partition("=")
        have = target.get(name)
        if have is None:
            return False
        if want.startswith("~"):
            return str(have).startswith(want[1:].lstrip("^"))
        return str(have) == want


asked = json.load(sys.stdin)
conf = cfg.ConfigOpts()
conf([])
enforcer = policy.Enforcer(conf, use_conf=False, default_rule="default")
enforcer.set_rules(policy.Rules.from_dict(asked["rules"], "default"), use_conf=False)
for rule, target, caller in asked["questions"]:
    sys.stdout.write("+" if enforcer.enforce(rule, target, caller) else "-")
