// What an application does with node-vault, unmodified, from npm. Each check
// that holds prints a line; the first that does not ends the process with 1.
'use strict';
const assert = require('node:assert/strict');

const vault = require('node-vault')({ apiVersion: 'v1', endpoint: process.env.VAULT_ADDR, token: process.env.VAULT_TOKEN });
const as = (token) => require('node-vault')({ apiVersion: 'v1', endpoint: process.env.VAULT_ADDR, token });

const status = async (promise) => {
  try {
    await promise;
  } catch (err) {
    return err.response ? err.response.statusCode : err;
  }
  return 'no error';
};

const story = {
  'status, health and mounts': async () => {
    assert.equal((await vault.status()).sealed, false);
    assert.equal((await vault.health()).initialized, true);
    assert.equal((await vault.mounts())['secret/'].options.version, '2');
    assert.equal((await vault.initialized()).initialized, true);
  },
  'kv version 2': async () => {
    await vault.write('secret/data/app', { data: { user: 'alice', port: 5432 } });
    const got = await vault.read('secret/data/app');
    assert.deepEqual(got.data.data, { user: 'alice', port: 5432 });
    assert.equal(got.data.metadata.version, 1);
    assert.deepEqual((await vault.list('secret/metadata')).data.keys, ['app']);
    await vault.delete('secret/data/app');
    assert.equal(await status(vault.read('secret/data/app')), 404);
    assert.equal(await status(vault.read('secret/data/none')), 404);
  },
  'kv version 1': async () => {
    await vault.mount({ mount_point: 'old', type: 'kv', description: 'version 1' });
    await vault.write('old/app', { user: 'bob' });
    assert.equal((await vault.read('old/app')).data.user, 'bob');
    await vault.unmount({ mount_point: 'old' });
    assert.equal(await status(vault.read('old/app')), 404);
  },
  'policies and tokens': async () => {
    await vault.addPolicy({ name: 'reader', rules: 'path "secret/data/app" { capabilities = ["read"] }' });
    assert.ok((await vault.policies()).policies.includes('reader'));
    // The client goes on with the token that it makes, so a copy makes it.
    const made = await as(vault.token).tokenCreate({ policies: ['reader'], ttl: '1h', meta: { team: 'a' } });
    const token = made.auth.client_token;
    assert.deepEqual([...made.auth.policies].sort(), ['default', 'reader']);
    assert.equal((await vault.tokenLookup({ token })).data.meta.team, 'a');
    assert.equal((await as(token).tokenLookupSelf()).data.creation_ttl, 3600);
    assert.equal((await as(token).tokenRenewSelf({ increment: 600 })).auth.lease_duration, 600);
    assert.equal(await status(as(token).read('sys/mounts')), 403);
    await vault.tokenRevoke({ token });
    assert.equal(await status(as(token).tokenLookupSelf()), 403);
    await vault.removePolicy({ name: 'reader' });
  },
  'wrapping': async () => {
    await vault.write('secret/data/wrapped', { data: { user: 'carol' } });
    const wrapped = await vault.read('secret/data/wrapped', { headers: { 'X-Vault-Wrap-TTL': '60s' } });
    assert.equal(wrapped.wrap_info.ttl, 60);
    assert.equal((await as(wrapped.wrap_info.token).unwrap()).data.data.user, 'carol');
    assert.equal(await status(as(wrapped.wrap_info.token).unwrap()), 400);
  },
  'leases': async () => {
    assert.equal(await status(vault.request({ method: 'PUT', path: '/sys/leases/lookup', json: { lease_id: 'none/x' } })), 400);
  },
};

(async () => {
  for (const [name, check] of Object.entries(story)) {
    try {
      await check();
    } catch (err) {
      console.log(`FAIL ${name}: ${err.stack}`);
      process.exit(1);
    }
    console.log(`ok   ${name}`);
  }
})();
