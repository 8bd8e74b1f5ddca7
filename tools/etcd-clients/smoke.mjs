// What Node's client of etcd does most, against the endpoint given: etcd3. Ends with status 0 only if every answer is etcd's.
// `root` must have the password `rootpwd`, and users must not count yet; they do for a part of it.

import assert from 'node:assert/strict';
import { Etcd3 } from 'etcd3';

const hosts = process.argv[2];
const client = new Etcd3({ hosts });

await client.delete().prefix('js/');
await client.put('js/a').value('1');
assert.equal(await client.get('js/a').string(), '1');
assert.equal(await client.get('js/none').string(), null);
await client.put('js/b').value('2');
assert.deepEqual(await client.getAll().prefix('js/').strings(), { 'js/a': '1', 'js/b': '2' });
const txn = await client.if('js/a', 'Value', '==', '1').then(client.put('js/c').value('3')).else(client.get('js/a')).commit();
assert.equal(txn.succeeded, true);

const watcher = await client.watch().prefix('js/w').create();
const heard = [];
const both = new Promise((resolve) => {
  const hear = (kind) => (kv) => {
    heard.push([kind, kv.key.toString(), kv.value.toString()]);
    if (heard.length === 2) resolve();
  };
  watcher.on('put', hear('put')).on('delete', hear('delete'));
});
await client.put('js/w1').value('x');
await client.delete().key('js/w1');
await both;
assert.deepEqual(heard, [['put', 'js/w1', 'x'], ['delete', 'js/w1', '']]);
await watcher.cancel();

const lease = client.lease(60);
await lease.put('js/leased').value('x');
assert.equal(await client.get('js/leased').string(), 'x');
await lease.revoke();
assert.equal(await client.get('js/leased').string(), null);
assert.equal(await client.lock('js/lock').ttl(20).do(async () => 'held'), 'held');
const election = client.election('js/post');
const campaign = election.campaign('me');
await new Promise((resolve) => campaign.once('elected', resolve));
assert.equal(await election.leader(), 'me');
await campaign.resign();
assert.ok((await client.maintenance.status()).version.startsWith('3.'));

// Users: with a password everything, without one nothing.
const root = new Etcd3({ hosts, auth: { username: 'root', password: 'rootpwd' } });
await client.auth.authEnable();
try {
  await assert.rejects(client.get('js/a').string(), /user name is empty/);
  assert.equal(await root.get('js/a').string(), '1');
  assert.deepEqual((await root.getUsers()).map((user) => user.name), ['root']);
} finally {
  await root.auth.authDisable();
}
assert.equal(await client.get('js/a').string(), '1');
client.close();
root.close();
console.log("node: etcd3 got etcd's answers");
