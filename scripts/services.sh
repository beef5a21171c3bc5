#!/usr/bin/env bash
# Private Kafka and Postgres for demo, tests and benches: any number side by side, everything under one folder.
set -euo pipefail
umask 022

usage() {
    cat <<'USAGE'
Usage: scripts/services.sh VERB …
  start [--owner PID] DIR        start Kafka and Postgres with their data under DIR (what already runs is kept);
                                 prints `export NAME=value` lines, also written to DIR/env. With --owner both stop
                                 when that process is gone, however it ended.
  stop DIR                       stop both, data stays; start brings them back on the same ports
  remove DIR                     stop both and delete DIR
  status DIR                     one line each; exit 0 when both run, 3 otherwise
  run DIR -- CMD…                start, run CMD with the environment, stop; exit code of CMD
  fresh NAME -- CMD…             like run in a new folder .local/NAME-…, deleted on success, kept on failure
  kafka start|stop|kill DIR      the broker alone; kill is SIGKILL
  postgres start|stop|kill DIR   the database alone; kill is SIGKILL of the server and its backends
Progress goes to stderr. Environment:
  KAFKA_HEAP_OPTS       the broker's heap (-Xmx512m -Xms256m)
  KAFKA_PROXY_PORT      port that the second listener advertises, for a proxy before the broker (chosen when unset)
  KAFKA_EXTRA_SETTINGS  further broker properties, one per line
  KAFKA_VERSION         the broker's version, of those that Maven has (4.1.1)
  SERVICES_WAIT_SECONDS how long a service may take to get ready (90)
USAGE
}

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kafka_libs=$root/.local/kafka-${KAFKA_VERSION:-4.1.1}/libs
ready_seconds=${SERVICES_WAIT_SECONDS:-90}

say() { printf '%s\n' "$*" >&2; }
fail() {
    printf 'services: %s\n' "$*" >&2
    exit 1
}

# ---- processes -------------------------------------------------------------------------------------------------

# Start time of a live process, in clock ticks. Together with the id it names a process for good: ids are reused.
# A zombie counts as gone: in a container nobody may ever reap it.
process_birth() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    # The name in parentheses may hold blanks; what follows the last one is: state ppid … (22nd field: starttime)
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != Z && ${stat[0]} != X ]] || return 1
    printf '%s\n' "${stat[19]}"
}

is_same_process() { # PID BIRTH
    local birth
    birth=$(process_birth "$1") && [[ $birth == "$2" ]]
}

# The process that a pid file ("PID BIRTH") names, if it still lives.
living() { # PIDFILE
    local pid birth
    { read -r pid birth <"$1"; } 2>/dev/null || return 1
    is_same_process "$pid" "$birth" && printf '%s\n' "$pid"
}

write_pid() { # PIDFILE PID: fails when the process is gone already
    local birth
    birth=$(process_birth "$2") || return 1
    printf '%s %s\n' "$2" "$birth" >"$1.new" && mv "$1.new" "$1"
}

# A process and everything below it, one id per word. Read from /proc: a bare machine has no ps.
process_tree() { # PID
    local file stat pid all=" $1 " grown=1
    local -A parent=()
    for file in /proc/[0-9]*/stat; do
        { read -r stat <"$file"; } 2>/dev/null || continue
        pid=${file#/proc/} pid=${pid%/stat}
        read -ra stat <<<"${stat##*) }"
        parent[$pid]=${stat[1]}
    done
    while ((grown)); do
        grown=0
        for pid in "${!parent[@]}"; do
            if [[ $all == *" ${parent[$pid]} "* && $all != *" $pid "* ]]; then
                all+="$pid " grown=1
            fi
        done
    done
    printf '%s' "$all"
}

signal() { kill "-$1" "${@:2}" 2>/dev/null || true; }

# Waits up to SECONDS for the process of a pid file to end.
wait_gone() { # PIDFILE SECONDS
    local deadline=$((SECONDS + $2))
    while living "$1" >/dev/null; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# TERM (or what the service calls a clean stop), then KILL.
end_service() { # NAME SIGNAL SECONDS
    local pidfile=$dir/$1/pid pid
    if pid=$(living "$pidfile"); then
        signal "$2" "$pid"
        if ! wait_gone "$pidfile" "$3"; then
            say "services: $1 (pid $pid) did not stop within $3 s and is killed"
            kill_service "$1"
        fi
    fi
    rm -f "$pidfile"
}

kill_service() { # NAME
    local pidfile=$dir/$1/pid pid tree
    if pid=$(living "$pidfile"); then
        read -ra tree <<<"$(process_tree "$pid")"
        signal KILL "${tree[@]}"
        wait_gone "$pidfile" 10 || fail "$1 (pid $pid) does not die; it hangs in the kernel"
        # The backends too: the database refuses to start again while one of them holds its shared memory.
        for pid in "${tree[@]}"; do
            for _ in {1..100}; do
                process_birth "$pid" >/dev/null || break
                sleep 0.05
            done
        done
    fi
    rm -f "$pidfile"
}

# Shows why a service did not come up, then gives up.
fail_with_log() { # NAME REASON LOG
    say "services: $1 $2. Last lines of $3:"
    tail -n 25 "$3" >&2 2>/dev/null || true
    kill_service "$1"
    fail "$1 $2; its log is $3"
}

# ---- ports -----------------------------------------------------------------------------------------------------

# Below 32768, where the kernel starts taking ports for outgoing connections.
port_low=20000
port_span=12000

# Whether anything on this machine has a socket bound to the port.
port_in_use() {
    local hex files=(/proc/net/tcp)
    [[ ! -r /proc/net/tcp6 ]] || files+=(/proc/net/tcp6)
    printf -v hex '%04X' "$1"
    grep -qE "^ *[0-9]+: [0-9A-F]+:$hex " "${files[@]}"
}

# Picks a free port and remembers it in FILE. A reservation lasts as long as FILE exists and holds the port, so that a
# stopped or killed service finds its port again while others start beside it.
reserve_port() { # FILE [PORT]
    local file=$1 wanted=${2:-} book=/tmp/trunkline-ports-$UID port holder
    [[ ! -s $file ]] || return 0
    (umask 077 && mkdir -p "$book")
    [[ -O $book && ! -L $book ]] || fail "$book belongs to someone else; remove it"
    exec {book_lock}>"$book/lock"
    flock -w 60 "$book_lock" || fail "$book/lock is held by another run for 60 s"
    for _ in {1..200}; do
        port=${wanted:-$((port_low + (RANDOM * 32768 + RANDOM) % port_span))}
        if [[ -z $wanted ]]; then
            port_in_use "$port" && continue
            holder=$(cat "$book/$port" 2>/dev/null || true)
            [[ -n $holder && $(cat "$holder" 2>/dev/null) == "$port" ]] && continue
        fi
        printf '%s\n' "$file" >"$book/$port"
        printf '%s\n' "$port" >"$file"
        exec {book_lock}>&-
        return 0
    done
    fail "no free port between $port_low and $((port_low + port_span))"
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # PORT

port_of() { cat "$dir/$1" 2>/dev/null; } # kafka/port, postgres/port, …

# ---- Kafka -----------------------------------------------------------------------------------------------------

log4j_status=-Dlog4j2.statusLoggerLevel=ERROR

kafka_settings() {
    local port controller upstream proxy
    port=$(port_of kafka/port) controller=$(port_of kafka/controller.port)
    upstream=$(port_of kafka/upstream.port) proxy=$(port_of kafka/proxy.port)
    cat <<SETTINGS
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$controller
# PROXIED advertises the port where a test puts its proxy; clients that come through it keep coming through it.
listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$upstream,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$proxy,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/kafka/data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
# Tests wait for none of the pauses that make sense in a cluster.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# After a SIGKILL the broker has to wait until its former self has timed out (9 s by default).
broker.session.timeout.ms=5000
broker.heartbeat.interval.ms=1000
log.retention.hours=24
log.segment.bytes=268435456
log.cleaner.dedupe.buffer.size=16777216
controlled.shutdown.max.retries=1
${KAFKA_EXTRA_SETTINGS:-}
SETTINGS
}

java_is_there() { command -v java >/dev/null || fail "java not found; run: $root/scripts/setup.sh services"; }

# Starts the broker's process; kafka_wait waits for it.
kafka_spawn() {
    local home=$dir/kafka heap pid
    read -ra heap <<<"${KAFKA_HEAP_OPTS:--Xmx512m -Xms256m}"
    java_is_there
    [[ -d $kafka_libs ]] || "$root/scripts/kafka-jars.sh" 9>&-
    mkdir -p "$home"
    rm -f "$home/pid"
    reserve_port "$home/port"
    reserve_port "$home/controller.port"
    reserve_port "$home/upstream.port"
    reserve_port "$home/proxy.port" "${KAFKA_PROXY_PORT:-}"
    kafka_settings >"$home/server.properties"
    if [[ ! -f $home/data/meta.properties ]]; then
        # Never half formatted: a start that was interrupted here begins again.
        rm -rf "$home/data"
        if ! java -Xshare:auto -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "$log4j_status" \
            -Dlog4j2.configurationFile="$root/scripts/kafka-log4j2.properties" -Dtrunkline.log.dir="$home" \
            -cp "$kafka_libs/*" kafka.tools.StorageTool format --standalone \
            --cluster-id "$(cluster_id)" --config "$home/server.properties" \
            </dev/null >"$home/format.log" 2>&1 9>&-; then
            fail_with_log kafka "could not format its data folder" "$home/format.log"
        fi
    fi
    touch "$home/server.log"
    stat -c %s "$home/server.log" >"$home/log.offset"
    setsid java "${heap[@]}" -Xshare:auto -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 \
        -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true "$log4j_status" \
        -Dlog4j2.configurationFile="$root/scripts/kafka-log4j2.properties" -Dtrunkline.log.dir="$home" \
        -cp "$kafka_libs/*" kafka.Kafka "$home/server.properties" \
        </dev/null >"$home/console.log" 2>&1 9>&- &
    pid=$!
    write_pid "$home/pid" "$pid" || fail_with_log kafka "ended at once" "$home/console.log"
}

# 16 random bytes in unpadded URL-safe base64, as Kafka writes its cluster ids.
cluster_id() {
    local id
    id=$(head -c 16 /dev/urandom | base64)
    id=${id//+/A} id=${id//\//B}
    printf '%s' "${id%%=*}"
}

kafka_log_since_start() {
    local from
    from=$(cat "$dir/kafka/log.offset")
    # The log may have rolled over since.
    (($(stat -c %s "$dir/kafka/server.log") >= from)) || from=0
    tail -c "+$((from + 1))" "$dir/kafka/server.log"
}

# 0 ready, 1 not in time, 2 a port was taken meanwhile
kafka_wait() {
    local home=$dir/kafka log=$dir/kafka/server.log deadline=$((SECONDS + ready_seconds)) port
    port=$(port_of kafka/port)
    # The port answers seconds before the broker serves; only its own word counts, and then the port.
    until [[ $(kafka_log_since_start) == *"Kafka Server started"* ]] && answers "$port"; do
        if ! living "$home/pid" >/dev/null; then
            [[ $(kafka_log_since_start) != *"Address already in use"* ]] || return 2
            [[ ! -s $home/console.log ]] || tail -n 10 "$home/console.log" >&2
            fail_with_log kafka "ended during its start" "$log"
        fi
        ((SECONDS < deadline)) || fail_with_log kafka "was not ready within $ready_seconds s" "$log"
        sleep 0.1
    done
}

forget_kafka_ports() { rm -f "$dir"/kafka/{,controller.,upstream.,proxy.}port; }

# ---- Postgres --------------------------------------------------------------------------------------------------

# The newest server binaries of version 15 or later, in PATH or in Debian's versioned folders.
postgres_bin() {
    local candidate version best=0 found=
    for candidate in "$(command -v postgres || true)" /usr/lib/postgresql/*/bin/postgres; do
        [[ -x $candidate ]] || continue
        candidate=$(readlink -f "$candidate")
        version=$("$candidate" --version 2>/dev/null) || continue
        version=${version##*) } version=${version%%[!0-9]*}
        if ((${version:-0} >= 15 && ${version:-0} > best)); then
            best=$version found=${candidate%/postgres}
        fi
    done
    [[ -n $found ]] || fail "no PostgreSQL server, version 15 or later, found; run: $root/scripts/setup.sh services"
    printf '%s\n' "$found"
}

# The server refuses to run as root, so root hands it to the user that its package creates.
postgres_user=postgres
as_postgres=()
choose_postgres_user() {
    ((EUID == 0)) || return 0
    if ! id -u "$postgres_user" >/dev/null 2>&1; then
        say "services: creating the system user '$postgres_user', because the database does not run as root"
        useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "$postgres_user" ||
            fail "could not create the user '$postgres_user'; run this as another user than root"
    fi
    # setpriv replaces itself, unlike runuser: the id of what we start is the server's own.
    as_postgres=(setpriv --reuid "$postgres_user" --regid "$(id -gn "$postgres_user")" --init-groups --)
}

# Where the data live: below DIR, or elsewhere when the server's user cannot get there (a checkout under /root).
postgres_place() {
    local home=$dir/postgres
    mkdir -p "$home"
    if [[ ! -s $home/place ]]; then
        local place=$home/cluster
        mkdir -p "$place"
        if ((EUID == 0)); then
            chown "$postgres_user:" "$place"
            if ! (cd / && "${as_postgres[@]}" test -w "$place"); then
                rmdir "$place"
                place=$(mktemp -d /var/tmp/trunkline-postgres-XXXXXX)
                chown "$postgres_user:" "$place"
                say "services: user '$postgres_user' cannot reach $home; the database lives in $place"
            fi
        fi
        printf '%s\n' "$place" >"$home/place"
    fi
    cat "$home/place"
}

# Creates the cluster with its role and database, complete or not at all.
postgres_create() { # BIN PLACE
    cd /
    rm -rf "$2/new"
    "${as_postgres[@]}" "$1/initdb" -D "$2/new" -U trunkline -A trust --encoding=UTF8 --locale=C --no-sync || return 1
    "${as_postgres[@]}" "$1/postgres" --single -D "$2/new" -c fsync=off postgres <<<'CREATE DATABASE trunkline' || return 1
    mv "$2/new" "$2/data"
}

postgres_spawn() {
    local home=$dir/postgres bin place pid
    bin=$(postgres_bin)
    choose_postgres_user
    place=$(postgres_place)
    rm -f "$home/pid"
    reserve_port "$home/port"
    # A killed server that its parent has not reaped yet looks alive to Postgres, which then refuses to start.
    if { read -r pid <"$place/data/postmaster.pid"; } 2>/dev/null && ! process_birth "$pid" >/dev/null; then
        rm -f "$place/data/postmaster.pid"
    fi
    if [[ ! -d $place/data ]]; then
        (postgres_create "$bin" "$place") </dev/null >"$home/create.log" 2>&1 9>&- ||
            fail_with_log postgres "could not create its database" "$home/create.log"
    fi
    stat -c %s "$home/server.log" >"$home/log.offset" 2>/dev/null || echo 0 >"$home/log.offset"
    # No Unix socket: its path would have to fit into 107 bytes, wherever the folder lies.
    (cd / && exec setsid "${as_postgres[@]}" env LC_ALL=C "$bin/postgres" -D "$place/data" -p "$(port_of postgres/port)" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 -c shared_buffers=128MB \
        -c log_line_prefix='%m [%p] %a ') </dev/null >>"$home/server.log" 2>&1 9>&- &
    pid=$!
    write_pid "$home/pid" "$pid" || fail_with_log postgres "ended at once" "$home/server.log"
}

# 0 ready, 1 not in time, 2 the port was taken meanwhile
postgres_wait() {
    local home=$dir/postgres log=$dir/postgres/server.log deadline=$((SECONDS + ready_seconds)) bin port
    bin=$(postgres_bin) port=$(port_of postgres/port)
    until [[ $(psql_says "$bin" "$port" "SELECT 'ready'") == ready ]]; do
        if ! living "$home/pid" >/dev/null; then
            tail -c "+$(($(cat "$home/log.offset") + 1))" "$log" | grep -q 'Address already in use' && return 2
            fail_with_log postgres "ended during its start" "$log"
        fi
        ((SECONDS < deadline)) || fail_with_log postgres "was not ready within $ready_seconds s" "$log"
        sleep 0.1
    done
}

psql_says() { # BIN PORT SQL
    PGCONNECT_TIMEOUT=5 "$1/psql" -X -w -h 127.0.0.1 -p "$2" -U trunkline -d trunkline -Atc "$3" 2>/dev/null </dev/null 9>&- ||
        true
}

# ---- both ------------------------------------------------------------------------------------------------------

# Takes DIR as given, makes it absolute; the verbs of one DIR exclude each other.
enter() { # DIR [create]
    [[ -n ${1:-} ]] || fail "a folder is missing; see: $0 help"
    if [[ ! -d $1 ]]; then
        [[ ${2:-} == create ]] || return 1
        mkdir -p "$1"
    fi
    dir=$(cd -P "$1" && pwd)
    [[ $dir != *[$',\\\n']* ]] || fail "$dir: Kafka takes no comma, backslash or line break in its data folder's path"
    [[ -f $dir/.trunkline-services || ${2:-} == create ]] || return 1
    exec 9>"$dir/.trunkline-services"
    flock -w 180 9 || fail "another run has been working on $dir for 3 minutes"
}

write_env() {
    local port
    {
        if port=$(port_of kafka/port); then
            printf 'export TRUNKLINE_KAFKA__BROKERS=127.0.0.1:%s\n' "$port"
            printf 'export TRUNKLINE_TEST_KAFKA=127.0.0.1:%s\n' "$port"
            # A proxy listens on the first and forwards to the second; clients use the first as their broker.
            printf 'export TRUNKLINE_TEST_KAFKA_PROXY=127.0.0.1:%s\n' "$(port_of kafka/proxy.port)"
            printf 'export TRUNKLINE_TEST_KAFKA_PROXY_UPSTREAM=127.0.0.1:%s\n' "$(port_of kafka/upstream.port)"
        fi
        if port=$(port_of postgres/port); then
            printf 'export TRUNKLINE_POSTGRES__URL=postgres://trunkline@127.0.0.1:%s/trunkline\n' "$port"
            printf 'export TRUNKLINE_TEST_POSTGRES=postgres://trunkline@127.0.0.1:%s/trunkline\n' "$port"
        fi
        printf 'export TRUNKLINE_TEST_SERVICES=%q\n' "$dir"
    } >"$dir/env.new"
    mv "$dir/env.new" "$dir/env"
}

# Starts what is named and not running, both at the same time. A port chosen just now may still be lost to a stranger:
# then another is chosen. A port already told to someone is kept.
start_services() { # kafka postgres
    local name attempt began=$SECONDS code
    local -a starting=()
    local -A told=()
    # What is missing is told before the other one has been made ready in vain.
    [[ " $* " != *" kafka "* ]] || java_is_there
    [[ " $* " != *" postgres "* ]] || postgres_bin >/dev/null
    for name in "$@"; do
        living "$dir/$name/pid" >/dev/null && continue
        starting+=("$name")
        told[$name]=$(port_of "$name/port" || true)
    done
    for name in "${starting[@]}"; do "${name}_spawn"; done
    for name in "${starting[@]}"; do
        for attempt in 1 2 3; do
            code=0
            "${name}_wait" || code=$?
            ((code != 0)) || break
            [[ -z ${told[$name]} ]] || fail "$name: port ${told[$name]}, on which it ran before, is taken by another program"
            ((attempt < 3)) || fail "$name: three chosen ports were taken before it could bind them"
            if [[ $name == kafka ]]; then forget_kafka_ports; else rm -f "$dir/$name/port"; fi
            # A formatted broker knows its controller's port from its settings only: format again.
            [[ $name != kafka ]] || rm -rf "$dir/kafka/data"
            "${name}_spawn"
        done
    done
    write_env
    if ((${#starting[@]})); then say "services: ${starting[*]} ready in $((SECONDS - began)) s ($dir)"; fi
}

stop_kafka() { end_service kafka TERM 15; }
# INT is Postgres' fast shutdown; TERM would wait for every client to leave.
stop_postgres() { end_service postgres INT 10; }

# Both at the same time; the watch over them ends with its file.
stop_services() {
    local kafka_stop
    rm -f "$dir/owner"
    stop_kafka 9>&- &
    kafka_stop=$!
    stop_postgres
    wait "$kafka_stop" || true
}

# Stops the services when their owner is gone, even if it was killed; also when someone deleted DIR under them.
watch_owner() { # DIR PID BIRTH TOKEN
    local pids=() line name
    dir=$1
    while [[ $(cat "$dir/owner" 2>/dev/null) == "$2 $3 $4" ]]; do
        if ! is_same_process "$2" "$3"; then
            enter "$dir" || break
            # A new owner may have come while this one waited for its turn.
            [[ $(cat "$dir/owner" 2>/dev/null) == "$2 $3 $4" ]] && stop_services
            return 0
        fi
        pids=()
        for name in kafka postgres; do
            { read -r line <"$dir/$name/pid"; } 2>/dev/null && pids+=("$line")
        done
        sleep 0.5
    done
    if [[ ! -d $dir ]]; then
        for line in "${pids[@]}"; do
            # shellcheck disable=SC2086  # two words: id and start time
            is_same_process $line && signal KILL "${line% *}"
        done
    fi
    return 0
}

set_owner() { # PID
    local birth token=$RANDOM$RANDOM
    birth=$(process_birth "$1") || fail "--owner $1: there is no such process"
    printf '%s %s %s\n' "$1" "$birth" "$token" >"$dir/owner"
    setsid "$root/scripts/services.sh" watch-owner "$dir" "$1" "$birth" "$token" </dev/null >/dev/null 2>&1 9>&- &
}

# What was started and killed before its id was written down. Found by the folder in its command line.
kill_unwritten() { # WORD…: each ends an argument of its own
    local file pid word argument
    for file in /proc/[0-9]*/cmdline; do
        pid=${file#/proc/} pid=${pid%/cmdline}
        while IFS= read -r -d '' argument; do
            for word in "$@"; do
                [[ $argument != "$word" ]] || signal KILL "$pid"
            done
        done 2>/dev/null <"$file" || true
    done
}

remove() {
    local place
    kill_service kafka
    kill_service postgres
    rm -f "$dir/owner"
    place=$(cat "$dir/postgres/place" 2>/dev/null || true)
    kill_unwritten "$dir/kafka/server.properties" "${place:-$dir/postgres/cluster}/data"
    [[ $place != /var/tmp/trunkline-postgres-* ]] || rm -rf "$place"
    rm -rf "$dir"
}

report() { # NAME
    local pid
    if pid=$(living "$dir/$1/pid"); then
        printf '%s running pid=%s port=%s log=%s\n' "$1" "$pid" "$(port_of "$1/port")" "$dir/$1/server.log"
    else
        printf '%s stopped\n' "$1"
        return 3
    fi
}

# Runs CMD between start and stop. What ends this script ends CMD and the services; a SIGKILL is the watch's business.
run() { # CMD…: its exit code is in command_code afterwards
    local deadline tree
    trap stop_services EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    set_owner "$$"
    start_services kafka postgres
    # The verbs must work from inside CMD: the lock is not held while it runs.
    exec 9>&-
    # shellcheck disable=SC1091  # written by write_env
    (. "$dir/env" && trap - INT TERM HUP EXIT && exec "$@") <&0 &
    command_pid=$! signalled=
    # A terminal sends Ctrl-C to the whole group, CMD has it already.
    trap 'signalled=INT; [[ -t 0 ]] || forward INT' INT
    trap 'signalled=TERM; forward TERM' TERM
    trap 'signalled=HUP; forward HUP' HUP
    deadline=
    while :; do
        command_code=0
        wait "$command_pid" || command_code=$?
        [[ -n $signalled ]] || break
        # The signal ended the wait, not CMD: it has 20 s from the first one, and its own exit code counts.
        signalled=
        : "${deadline:=$((SECONDS + 20))}"
        while process_birth "$command_pid" >/dev/null && ((SECONDS < deadline)); do sleep 0.1; done
        if process_birth "$command_pid" >/dev/null; then
            read -ra tree <<<"$(process_tree "$command_pid")"
            signal KILL "${tree[@]}"
        fi
    done
    trap '' INT TERM HUP
    trap - EXIT
    enter "$dir" && stop_services
}

forward() { # SIGNAL
    local tree
    read -ra tree <<<"$(process_tree "$command_pid")"
    signal "$1" "${tree[@]}"
}

one_service() { # kafka|postgres start|stop|kill DIR
    local name=$1 verb=${2:-}
    case $verb in
        start)
            enter "${3:-}" create
            start_services "$name"
            cat "$dir/env"
            ;;
        stop) ! enter "${3:-}" || "stop_$name" ;;
        kill) ! enter "${3:-}" || kill_service "$name" ;;
        *) usage >&2 && exit 2 ;;
    esac
}

after_dashes() { # the words after DIR: `-- CMD…`
    [[ ${1:-} == -- && -n ${2:-} ]] || { usage >&2 && exit 2; }
}

verb=${1:-help}
shift || true
case $verb in
    start)
        owner=
        if [[ ${1:-} == --owner ]]; then owner=${2:-} && shift 2; fi
        target=${1:-}
        if [[ ${2:-} == --owner ]]; then owner=${3:-}; fi
        enter "$target" create
        if [[ -n $owner ]]; then set_owner "$owner"; fi
        start_services kafka postgres
        cat "$dir/env"
        ;;
    stop) ! enter "${1:-}" || stop_services ;;
    remove) ! enter "${1:-}" || remove ;;
    status)
        [[ -d ${1:-} ]] || fail "${1:-(no folder given)}: no such folder"
        dir=$(cd -P "$1" && pwd)
        code=0
        report kafka || code=$?
        report postgres || code=$?
        exit "$code"
        ;;
    run)
        after_dashes "${@:2}"
        enter "$1" create
        run "${@:3}"
        exit "$command_code"
        ;;
    fresh)
        after_dashes "${@:2}"
        mkdir -p "$root/.local"
        target=$(mktemp -d "$root/.local/$1-XXXXXX")
        chmod 755 "$target"
        enter "$target" create
        run "${@:3}"
        if ((command_code == 0)); then
            remove
        else
            say "services: exit code $command_code; logs and data are kept in $dir" \
                "(to delete them: $root/scripts/services.sh remove $dir)"
        fi
        exit "$command_code"
        ;;
    kafka | postgres) one_service "$verb" "$@" ;;
    watch-owner) watch_owner "$@" ;;
    help | --help | -h) usage ;;
    *) usage >&2 && exit 2 ;;
esac
