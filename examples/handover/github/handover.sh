#!/bin/sh
# Writes the newest access key into the secrets of a GitHub repository and confirms it on the AwsDeployUser. Needs kubectl,
# jq and gh, which must be logged in (GH_TOKEN with write access to the secrets of the repository). Values of keys are in no
# argument list, no environment variable and no output.
#
#   NAMESPACE, NAME  the AwsDeployUser
#   CONSUMER         name in its accessKey.handover
#   REPOSITORY       owner/name
#   ENVIRONMENT      environment of the repository whose secrets are written; optional
set -eu
umask 077
: "${NAMESPACE:?}" "${NAME:?}" "${CONSUMER:?}" "${REPOSITORY:?}"
resource=awsdeployusers.awsdeploy.dev/$NAME

die() {
    printf 'handover: %s\n' "$*" >&2
    exit 1
}

object=$(kubectl --namespace "$NAMESPACE" get "$resource" --output json) || die "$NAME cannot be read"
published=$(printf '%s' "$object" | jq -r 'first(.status.accessKeys[]? | select(.state == "Published") | .id) // empty')
secret=$(printf '%s' "$object" | jq -r '.status.secretName // empty')
confirmed=$(printf '%s' "$object" | jq -r --arg name "handover.awsdeploy.dev/$CONSUMER" '.metadata.annotations[$name] // empty')
if [ -z "$published" ] || [ -z "$secret" ]; then die "$NAME has no published key"; fi
if [ "$published" = "$confirmed" ]; then
    printf 'handover: %s is confirmed already\n' "$published"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Files, because a pipe hides the failure of all but its last program.
kubectl --namespace "$NAMESPACE" get secret "$secret" --output json >"$work/secret" || die "Secret $secret cannot be read"
# One read, so that id and value belong together.
jq -r '.data | "AWS_ACCESS_KEY_ID=\(.AWS_ACCESS_KEY_ID | @base64d)\nAWS_SECRET_ACCESS_KEY=\(.AWS_SECRET_ACCESS_KEY | @base64d)"' \
    "$work/secret" >"$work/env" || die "Secret $secret has no key in the format Environment"
grep -qx "AWS_ACCESS_KEY_ID=$published" "$work/env" || die "Secret $secret does not hold $published; try again"
gh secret set --repo "$REPOSITORY" ${ENVIRONMENT:+--env "$ENVIRONMENT"} --env-file "$work/env" ||
    die "GitHub does not accept the secrets"

kubectl --namespace "$NAMESPACE" annotate "$resource" --overwrite "handover.awsdeploy.dev/$CONSUMER=$published" >/dev/null ||
    die "$published is in GitHub, but could not be confirmed"
printf 'handover: %s uses %s\n' "$REPOSITORY" "$published"
