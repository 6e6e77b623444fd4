#!/bin/sh
# Hands the newest access key over to the AWS integration of a Cycle hub, lets Cycle verify it, and confirms it on the
# AwsDeployUser. Needs curl and jq. Values of keys are in no argument list, no environment variable and no output.
#
#   AWS_DIR            directory of the mounted Secret with the access key
#   CYCLE_DIR          directory of the mounted Secret with the files api-key and hub-id
#   CYCLE_INTEGRATION  identifier of the integration in the hub
#   NAMESPACE, NAME    the AwsDeployUser
#   CONSUMER           name in its accessKey.handover
#
# Exits with 0 if the published key is confirmed, or is not in the mounted Secret yet.
set -eu
umask 077
: "${AWS_DIR:?}" "${CYCLE_DIR:?}" "${CYCLE_INTEGRATION:?}" "${NAMESPACE:?}" "${NAME:?}" "${CONSUMER:?}"
cycle=${CYCLE_URL:-https://api.cycle.io}
kubernetes=${KUBERNETES_URL:-https://kubernetes.default.svc}
account=${ACCOUNT_DIR:-/var/run/secrets/kubernetes.io/serviceaccount}
# Seconds between two reads of the verification, and their number.
pause=${POLL_SECONDS:-5}
polls=${POLLS:-60}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() {
    printf 'handover: %s\n' "$*" >&2
    exit 1
}

# Prints the only line of a file that goes into a configuration of curl, where a quote would end the value.
word() {
    text=$(cat "$1")
    case $text in
    '' | *[!A-Za-z0-9._~+/=:-]*) die "$1 is empty or has a character that no token has" ;;
    esac
    printf '%s' "$text"
}

# Calls an API by the configuration in $work/config, which has headers and URL. The answer is in $work/answer.
call() {
    what=$1
    code=$(curl --config "$work/config" --silent --show-error --max-time 30 --retry 2 --output "$work/answer" \
        --write-out '%{http_code}') || die "$what: no answer"
    case $code in
    2??) ;;
    *) die "$what: HTTP $code $(jq -r '.error.code // .reason // empty' "$work/answer" 2>/dev/null || true)" ;;
    esac
}

# cycle_api METHOD PATH: the body, if any, is in $work/body.
cycle_api() {
    token=$(word "$CYCLE_DIR/api-key")
    hub=$(word "$CYCLE_DIR/hub-id")
    {
        printf 'url = "%s%s"\nrequest = "%s"\n' "$cycle" "$2" "$1"
        printf 'header = "Authorization: Bearer %s"\nheader = "X-Hub-Id: %s"\n' "$token" "$hub"
        if [ -e "$work/body" ]; then
            printf 'header = "Content-Type: application/json"\ndata-binary = "@%s"\n' "$work/body"
        fi
    } >"$work/config"
    call "Cycle $1 ${2%%\?*}"
    rm -f "$work/body"
}

# kubernetes_api METHOD: of the AwsDeployUser.
kubernetes_api() {
    token=$(word "$account/token")
    {
        printf 'url = "%s/apis/awsdeploy.dev/v1alpha1/namespaces/%s/awsdeployusers/%s"\n' "$kubernetes" "$NAMESPACE" "$NAME"
        printf 'request = "%s"\nheader = "Authorization: Bearer %s"\n' "$1" "$token"
        if [ -e "$account/ca.crt" ]; then printf 'cacert = "%s"\n' "$account/ca.crt"; fi
        if [ -e "$work/body" ]; then
            printf 'header = "Content-Type: application/merge-patch+json"\ndata-binary = "@%s"\n' "$work/body"
        fi
    } >"$work/config"
    call "Kubernetes $1 awsdeployusers/$NAME"
    rm -f "$work/body"
}

# One version of the Secret: the kubelet replaces the link ..data.
if [ -e "$AWS_DIR/..data" ]; then AWS_DIR=$(cd -P "$AWS_DIR/..data" && pwd); fi
key_id=$(word "$AWS_DIR/AWS_ACCESS_KEY_ID")

annotation=handover.awsdeploy.dev/$CONSUMER
kubernetes_api GET
published=$(jq -r 'first(.status.accessKeys[]? | select(.state == "Published") | .id) // empty' "$work/answer")
confirmed=$(jq -r --arg name "$annotation" '.metadata.annotations[$name] // empty' "$work/answer")
if [ "$key_id" != "$published" ]; then
    printf 'handover: the mounted Secret has %s, and %s is published; the next run tries again\n' \
        "$key_id" "${published:-none}"
    exit 0
fi
if [ "$key_id" = "$confirmed" ]; then
    printf 'handover: %s is confirmed already\n' "$key_id"
    exit 0
fi

case $CYCLE_INTEGRATION in
*[!A-Za-z0-9._-]*) die "CYCLE_INTEGRATION is not an identifier: $CYCLE_INTEGRATION" ;;
esac
cycle_api GET "/v1/hubs/current/integrations?meta=definition&filter%5Bsearch%5D=$CYCLE_INTEGRATION&page%5Bsize%5D=100"
jq --arg identifier "$CYCLE_INTEGRATION" \
    '[.data[] | select(.identifier == $identifier and (.state.current | IN("deleting", "deleted") | not))]' \
    "$work/answer" >"$work/found"
[ "$(jq length "$work/found")" = 1 ] ||
    die "the hub has $(jq length "$work/found") integrations with the identifier $CYCLE_INTEGRATION; exactly one is needed"
jq '.[0]' "$work/found" >"$work/integration"
id=$(jq -r .id "$work/integration")
# The definition names the fields of the vendor.
field=$(jq -r '(.meta.definition.fields.auth // {"key_id": {}}) |
    if has("key_id") then "key_id" elif has("api_key") then "api_key" else empty end' "$work/integration")
[ -n "$field" ] || die "the integration $CYCLE_INTEGRATION has no field for an access key id"

# jq reads the secret from its file. Other fields of auth stay as they are.
jq --arg field "$field" --rawfile id "$AWS_DIR/AWS_ACCESS_KEY_ID" --rawfile secret "$AWS_DIR/AWS_SECRET_ACCESS_KEY" \
    '{auth: ((.auth // {}) | {region, namespace} | with_entries(select(.value != null))
        | .[$field] = ($id | rtrimstr("\n")) | .secret = ($secret | rtrimstr("\n")))}' \
    "$work/integration" >"$work/body"
cycle_api PATCH "/v1/hubs/current/integrations/$id"

if [ "$(jq -r '.meta.definition | .supports_verification != false' "$work/integration")" = true ]; then
    printf '{"action": "verify"}' >"$work/body"
    cycle_api POST "/v1/hubs/current/integrations/$id/tasks"
    job=$(jq -r '.data.job.id // empty' "$work/answer")
    [ -n "$job" ] || die "Cycle started no job for the verification"
    state=''
    while [ "$state" != completed ]; do
        [ "$polls" -gt 0 ] || die "the verification (job $job) does not end: ${state:-no state}"
        polls=$((polls - 1))
        cycle_api GET "/v1/jobs/$job"
        state=$(jq -r '.data.state.current // empty' "$work/answer")
        case $state in
        completed) ;;
        error | expired)
            why=$(jq -r '.data.state.error.message // "no message"' "$work/answer")
            die "Cycle does not accept $key_id (job $job, $state): $why"
            ;;
        *) sleep "$pause" ;;
        esac
    done
fi

jq -n --arg name "$annotation" --arg id "$key_id" '{metadata: {annotations: {($name): $id}}}' >"$work/body"
kubernetes_api PATCH
printf 'handover: %s uses %s\n' "$CYCLE_INTEGRATION" "$key_id"
