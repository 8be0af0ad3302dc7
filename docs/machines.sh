# Machines on one computer, for three-machines.sh. Each has a directory of its own and, as root, on
# Linux, as much of the following as the system lets us:
#
#     files      what is in the directories of the others is not there for it (unshare)
#     user       a user of its own, and nobody else may read its directory (setpriv)
#     network    an address of its own, on a network that nothing else is on (ip)

machines() { # DIR NAME...: make machines, which end with the script, and say which of these hold
    place=$1
    shift
    names=$*
    net=pluralllm-$$
    for name in $names; do mkdir -m 700 "$place/$name"; done
    # Not before: of directories that are there, another script may still use the machines.
    trap turn_off EXIT
    trap 'exit 1' INT TERM
    users=$((20000 + $$ % 10000 * 4)) # users are the numbers that follow, if nobody has these
    files="no (needs root and unshare)"
    user="no (needs root, and that every user may enter DIR and run pluralllm)"
    network="no (needs root and ip)"
    if [ "$(id -u)" = 0 ]; then
        if unshare --mount true 2>/dev/null; then files=yes; fi
        if connect 2>/dev/null; then network=yes; fi
        otherwise=$user user=yes
        while getent passwd $((users + 1)) $((users + 2)) $((users + 3)) | grep -q .; do
            users=$((users + 3))
        done
        own "$1"
        # By a shell, which has no more rights than its user.
        if ! on "$1" sh -c 'pluralllm --version' >/dev/null 2>&1; then
            chown -R 0:0 "$place/$1"
            user=$otherwise
        fi
        for name in $names; do own "$name"; done
    fi
    echo "Machines have their own: files $files, user $user, network $network"
}

number() { # NAME: 1 for the first machine, and so on
    count=0
    for name in $names; do
        count=$((count + 1))
        [ "$name" != "$1" ] || echo $count
    done
}

own() { # NAME: give a machine what was copied into its directory
    id=$((users + $(number "$1")))
    [ "$user" != yes ] || chown -R $id:$id "$place/$1"
}

address() { # NAME: where the others reach a machine
    if [ "$network" = yes ]; then echo "10.77.0.$(number "$1")"; else echo 127.0.0.1; fi
}

on() { # NAME COMMAND...: run a command on a machine
    (
        machine=$1
        shift
        cd "$place/$machine"
        export USER="$machine" HOME="$PWD" TMPDIR="$PWD"
        if [ "$user" = yes ]; then
            id=$((users + $(number "$machine")))
            set -- setpriv --reuid $id --regid $id --clear-groups "$@"
        fi
        if [ "$files" = yes ]; then
            set -- unshare --mount sh -euc '
                place=$1 machine=$2 names=$3
                shift 3
                for name in $names; do
                    [ $name = "$machine" ] || mount -t tmpfs none "$place/$name"
                done
                exec "$@"' sh "$place" "$machine" "$names" "$@"
        fi
        if [ "$network" = yes ]; then set -- ip netns exec "$net-$machine" "$@"; fi
        exec "$@"
    )
}

connect() { # join the networks of all machines by a switch, which is in one of its own
    ip netns add "$net-switch" &&
        ip -n "$net-switch" link add switch type bridge &&
        ip -n "$net-switch" link set switch up || return
    for name in $names; do
        ip netns add "$net-$name" &&
            ip -n "$net-$name" link set lo up &&
            ip -n "$net-switch" link add "$name" type veth peer name cable netns "$net-$name" &&
            ip -n "$net-switch" link set "$name" master switch up &&
            ip -n "$net-$name" address add "10.77.0.$(number "$name")/24" dev cable &&
            ip -n "$net-$name" link set cable up &&
            ip netns exec "$net-$name" true || return
    done
}

turn_off() { # end what still runs on the machines, and remove their networks
    trap - EXIT INT TERM
    for name in $names; do pkill -f "$place/$name/" || true; done
    wait
    for name in switch $names; do ip netns delete "$net-$name" 2>/dev/null || true; done
}
