"""What Python's clients of etcd do most, against the endpoint HOST PORT: etcd3 over gRPC, etcd3gw over JSON.

Ends with status 0 only if every answer is the one that etcd gives. `root` must have the password `rootpwd`, and users must not
count yet.
"""

import sys
import threading

import etcd3
import etcd3gw

host, port = sys.argv[1], int(sys.argv[2])


def check(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: {found!r}, not {expected!r}")


def over_grpc(client):
    client.delete_prefix("py/")
    client.put("py/a", "1")
    value, metadata = client.get("py/a")
    check("get", (value, metadata.version), (b"1", 1))
    check("get of nothing", client.get("py/none")[0], None)
    client.put("py/b", "2")
    check("prefix", [value for value, _ in client.get_prefix("py/")], [b"1", b"2"])
    check("replace", client.replace("py/a", "1", "3"), True)
    check("replace of another value", client.replace("py/a", "1", "4"), False)
    done, answers = client.transaction(
        compare=[client.transactions.value("py/a") == "3"],
        success=[client.transactions.put("py/c", "5"), client.transactions.get("py/c")],
        failure=[],
    )
    check("transaction", (done, answers[1][0][0]), (True, b"5"))

    heard, all_heard = [], threading.Event()

    def hear(response):
        heard.extend((type(event).__name__, event.key, event.value) for event in response.events)
        if len(heard) >= 2:
            all_heard.set()

    watch = client.add_watch_prefix_callback("py/w", hear)
    client.put("py/w1", "x")
    client.delete("py/w1")
    check("a watch hears", all_heard.wait(20), True)
    check("watch", heard, [("PutEvent", b"py/w1", b"x"), ("DeleteEvent", b"py/w1", b"")])
    client.cancel_watch(watch)

    lease = client.lease(60)
    client.put("py/leased", "x", lease=lease)
    check("lease", (lease.granted_ttl, lease.keys), (60, [b"py/leased"]))
    lease.refresh()
    lease.revoke()
    check("a revoked lease's key", client.get("py/leased")[0], None)
    with client.lock("py/lock", ttl=20) as lock:
        check("lock", lock.is_acquired(), True)
    check("members", len(list(client.members)) > 0, True)
    check("status", client.status().version.startswith("3."), True)


def over_json():
    client = etcd3gw.client(host=host, port=port, api_path="/v3/")
    client.put("gw/a", "1")
    check("get", client.get("gw/a"), [b"1"])
    check("prefix", [value for value, _ in client.get_prefix("gw/")], [b"1"])
    check("replace", client.replace("gw/a", "1", "2"), True)
    check("create", (client.create("gw/b", "x"), client.create("gw/b", "y")), (True, False))
    lease = client.lease(60)
    client.put("gw/leased", "x", lease=lease)
    check("lease", lease.keys(), [b"gw/leased"])
    check("refresh", lease.refresh(), 60)
    lease.revoke()
    check("a revoked lease's key", client.get("gw/leased"), [])
    events, cancel = client.watch("gw/w")
    client.put("gw/w", "x")
    check("watch", next(events)["kv"]["value"], b"x")
    cancel()
    check("delete", client.delete("gw/a"), True)
    check("status", client.status()["version"].startswith("3."), True)


client = etcd3.client(host=host, port=port)
over_grpc(client)
over_json()
print("python: etcd3 over gRPC and etcd3gw over JSON got etcd's answers")
