"""Python runs this before the AWS emulator. The first call to an account parses and copies the documents of all AWS managed
policies, which takes more than a second. Only names, paths and versions matter to the tests: no call is evaluated against
what is attached to a user."""

import json

from moto.iam import models

policies = json.loads(models.aws_managed_policies_data)
for policy in policies.values():
    policy["Document"] = {"Version": "2012-10-17", "Statement": []}
models.aws_managed_policies_data = json.dumps(policies)
