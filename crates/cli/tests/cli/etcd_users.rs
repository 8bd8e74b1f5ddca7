//! `etcdctl user`, `role`, `auth`, and what `--user name:password` may do, against `quorate dev`.

use crate::common::Cluster;
use crate::common::etcdctl::Etcdctl;

#[test]
fn users_and_roles_are_managed_with_etcdctl_and_enforced() {
    let (mut cluster, url) = Cluster::dev_with_etcd();
    let Some(nobody) = Etcdctl::of(&url) else { return };
    assert!(nobody.must_fail(&["auth", "enable"]).contains("root user does not exist"));
    assert_eq!(nobody.must(&["user", "add", "root:top"]), "User root created\n");
    assert_eq!(nobody.must(&["user", "add", "ann:secret"]), "User ann created\n");
    assert_eq!(nobody.must(&["role", "add", "writer"]), "Role writer created\n");
    nobody.must(&["role", "grant-permission", "writer", "readwrite", "a/", "--prefix"]);
    nobody.must(&["role", "grant-permission", "writer", "read", "common"]);
    nobody.must(&["user", "grant-role", "ann", "writer"]);
    let role = nobody.must(&["role", "get", "writer"]);
    assert!(role.contains("[a/, a0) (prefix a/)") && role.contains("common"), "{role}");
    nobody.must(&["put", "common", "1"]);
    assert_eq!(nobody.must(&["auth", "enable"]), "Authentication Enabled\n");

    assert!(nobody.must_fail(&["get", "common"]).contains("user name is empty"));
    let (root, ann) = (nobody.by("root:top"), nobody.by("ann:secret"));
    let wrong = nobody.by("ann:wrong").must_fail(&["get", "common"]);
    assert!(wrong.contains("authentication failed, invalid user ID or password"), "{wrong}");
    assert_eq!(ann.must(&["put", "a/1", "x"]), "OK\n");
    assert_eq!(ann.must(&["get", "a/", "--prefix"]), "a/1\nx\n");
    assert_eq!(ann.must(&["get", "common"]), "common\n1\n");
    for arguments in [
        &["put", "common", "2"][..],
        &["get", "b"],
        &["get", "", "--prefix"],
        &["del", "common"],
        &["user", "list"],
        &["role", "add", "x"],
        &["auth", "disable"],
    ] {
        let said = ann.must_fail(arguments);
        assert!(said.contains("permission denied"), "{arguments:?}: {said}");
    }
    assert_eq!(ann.must(&["user", "get", "ann"]), "User: ann\nRoles: writer\n");

    assert_eq!(root.must(&["user", "list"]), "ann\nroot\n");
    assert_eq!(root.must(&["role", "list"]).lines().last(), Some("writer"));
    root.must(&["role", "revoke-permission", "writer", "common"]);
    assert!(ann.must_fail(&["get", "common"]).contains("permission denied"));
    let changed = root.told(&["user", "passwd", "ann", "--interactive=false"], "new\n");
    assert_eq!(changed, "Password updated\n");
    assert!(ann.must_fail(&["get", "a/1"]).contains("authentication failed"));
    let ann = nobody.by("ann:new");
    assert_eq!(ann.must(&["get", "a/1"]), "a/1\nx\n");
    root.must(&["user", "revoke-role", "ann", "writer"]);
    assert!(ann.must_fail(&["get", "a/1"]).contains("permission denied"));
    root.must(&["role", "delete", "writer"]);
    root.must(&["user", "delete", "ann"]);
    assert!(ann.must_fail(&["get", "a/1"]).contains("authentication failed"));
    assert!(root.must_fail(&["user", "delete", "root"]).contains("invalid auth management"));

    // the log and the snapshots carry users: they are there after all replicas have stopped
    assert!(cluster.stop_dev());
    let said = cluster.start_dev_with(&["--etcd", "127.0.0.1:0"]);
    let url = said.iter().find_map(|line| line.trim().strip_prefix("the etcd v3 API is at ")).expect("it says where");
    let nobody = Etcdctl::of(url).expect("it is installed");
    assert!(nobody.must_fail(&["get", "a/1"]).contains("user name is empty"));
    let root = nobody.by("root:top");
    assert_eq!(root.must(&["get", "a/1"]), "a/1\nx\n");
    assert_eq!(root.must(&["auth", "disable"]), "Authentication Disabled\n");
    assert_eq!(nobody.must(&["get", "a/1"]), "a/1\nx\n");
    assert!(cluster.stop_dev());
}
