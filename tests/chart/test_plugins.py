"""Tests of the k9s plugins."""

import re
import unittest

import yaml
from chart import ROOT


class Plugins(unittest.TestCase):
    """integrations/k9s/plugins.yaml."""

    PLUGINS = yaml.safe_load((ROOT / "integrations/k9s/plugins.yaml").read_text())["plugins"]
    # https://github.com/derailed/k9s, internal/config/json/schemas/plugins.json
    KNOWN = {"shortCut", "override", "description", "confirm", "dangerous", "scopes", "command", "background", "overwriteOutput", "args", "inputs"}

    def test_plugins_match_the_schema_of_k9s(self):
        for name, plugin in self.PLUGINS.items():
            self.assertLessEqual(set(plugin), self.KNOWN, name)
            self.assertLessEqual({"shortCut", "description", "scopes", "command"}, set(plugin), name)
            self.assertEqual(plugin["scopes"], ["awsdeployusers"])
            self.assertTrue(all(isinstance(argument, str) for argument in plugin["args"]), name)
        keys = [plugin["shortCut"] for plugin in self.PLUGINS.values()]
        self.assertEqual(len(keys), len(set(keys)))

    def test_plugins_that_write_ask_first(self):
        for name, plugin in self.PLUGINS.items():
            writes = re.search(r"\b(patch|annotate)\b", " ".join(plugin["args"])) is not None
            self.assertEqual((plugin.get("confirm", False), plugin.get("dangerous", False)), (writes, writes), name)

    def test_plugins_and_argo_cd_have_the_same_actions(self):
        actions = {path.parent.name for path in (ROOT / "integrations/argocd").glob("awsdeploy.dev/*/actions/*/action.lua")}
        self.assertEqual({name.removeprefix("awsdeploy-") for name in self.PLUGINS} - {"conditions"}, actions)
        text = (ROOT / "integrations/k9s/plugins.yaml").read_text()
        for change in ("awsdeploy.dev/rotate=", "awsdeploy.dev/paused=true", "awsdeploy.dev/paused-", '"credentials":"Revoked"', '"credentials":"Active"'):
            self.assertIn(change, text)
