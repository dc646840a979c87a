# Makes one cluster of empty servers: sh create-cluster.sh ADDRESS:PORT…
# The first half become masters, the others their replicas. REDISCLI_AUTH has the password of the user cluster.
#
# May run again at any time. Steps that are done are left out: a whole cluster stays as it is, also after a failover; a
# half made one is completed; a server that has lost its data becomes the replica of a master without one, if its own
# replica took over while it was away.
set -eu

cli() (
    address=$1
    shift
    exec valkey-cli -e -h "${address%:*}" -p "${address##*:}" --user cluster "$@"
)

# The line of a server about itself: id, address, flags, master, four fields more, and its slots.
myself() {
    cli "$1" cluster nodes | grep myself
}

wait_for() {
    wanted=$1
    shift
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [ "$tries" -ge 600 ]; then
            echo "$wanted: not so after 300 s; see the logs of the servers" >&2
            exit 1
        fi
        sleep 0.5
    done
}

answers() {
    [ "$(cli "$1" ping 2>/dev/null)" = PONG ]
}

# True if a server is connected to all others.
sees_all() (
    seen=$(cli "$1" cluster nodes) || exit 1
    case $seen in *handshake*) exit 1 ;; esac
    for id in $ids; do
        case $seen in *"$id"*) ;; *) exit 1 ;; esac
    done
)

has_all_slots() {
    cli "$1" cluster info | grep -q '^cluster_slots_assigned:16384'
}

serves() {
    has_all_slots "$1" && cli "$1" cluster info | grep -q '^cluster_state:ok' &&
        ! cli "$1" info replication | grep -q '^master_link_status:down'
}

# Prints the id of a master without a replica. Fails if each has one.
lonely_master() (
    lines=$(for node in $nodes; do myself "$node"; done)
    followed=$(echo "$lines" | while read -r _ _ _ master _; do echo "$master"; done)
    echo "$lines" | {
        while read -r id _ flags _ _ _ _ _ slots; do
            case $flags in *master*) ;; *) continue ;; esac
            case $followed in *"$id"*) continue ;; esac
            [ -z "$slots" ] || { echo "$id" && exit 0; }
        done
        exit 1
    }
)

is_empty_master() {
    myself "$1" | {
        read -r _ _ flags _ _ _ _ _ slots
        case $flags in *master*) [ -z "$slots" ] ;; *) false ;; esac
    }
}

replicate() {
    master=$(lonely_master) && cli "$1" cluster replicate "$master"
}

nodes=$*
for node in $nodes; do
    wait_for "$node answers" answers "$node"
done
ids=$(for node in $nodes; do cli "$node" cluster myid; done)

for node in $nodes; do
    case $(cli "$1" cluster nodes) in
        *"$(cli "$node" cluster myid)"*) ;;
        *)
            bus=$(myself "$node")
            bus=${bus#*@}
            cli "$1" cluster meet "${node%:*}" "${node##*:}" "${bus%%[ ,]*}"
            ;;
    esac
done
for node in $nodes; do
    wait_for "$node is connected to all others" sees_all "$node"
done

has_slots=
for node in $nodes; do
    ! has_all_slots "$node" || has_slots=yes
done
masters=$(($# / 2))
number=0
for node in $nodes; do
    [ -z "$has_slots" ] && [ "$number" -lt "$masters" ] || break
    if is_empty_master "$node"; then
        cli "$node" cluster addslotsrange $((16384 * number / masters)) $((16384 * (number + 1) / masters - 1))
    fi
    number=$((number + 1))
done
for node in $nodes; do
    wait_for "$node has seen all slots" has_all_slots "$node"
done

for node in $nodes; do
    if is_empty_master "$node"; then
        wait_for "$node replicates a master" replicate "$node"
    fi
done
for node in $nodes; do
    wait_for "$node serves" serves "$node"
done
