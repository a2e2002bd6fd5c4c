import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sdk } from './module.mjs';

const flag = (key, kind, value) => ({
    key,
    kind,
    variations: [
        { key: 'yes', value },
        { key: 'no', value },
    ],
    config: { on: true, offVariation: 'no', fallthrough: { variation: 'yes' } },
});

const snapshot = (flags) => ({ revision: 'h:1', project: 'shop', environment: 'production', flags, segments: [] });

test('the module speaks version 1 of the push protocol', () => {
    assert.equal(sdk.protocolVersion(), 1);
});

test('a snapshot is taken as text and as an object', () => {
    const given = snapshot([flag('a', 'string', 'v')]);
    for (const form of [given, JSON.stringify(given)]) {
        const evaluator = new sdk.Evaluator(form);
        assert.equal(evaluator.revision, 'h:1');
        assert.deepEqual(evaluator.problems, []);
        assert.deepEqual(evaluator.evaluate('a', { targetingKey: 'u' }), { value: 'v', variation: 'yes', reason: 'STATIC', revision: 'h:1' });
        assert.deepEqual(evaluator.evaluate('a', '{"targetingKey":"u"}'), evaluator.evaluate('a', { targetingKey: 'u' }));
        evaluator.free();
    }
});

test('what is no snapshot is refused, saying why', () => {
    for (const form of [undefined, 17, '', '{', '[]', {}, { revision: 'none' }]) {
        assert.throws(() => new sdk.Evaluator(form), /this snapshot cannot be used: /, JSON.stringify(form));
    }
});

test('the default stands in, itself, where nothing can be served', () => {
    const evaluator = new sdk.Evaluator(snapshot([flag('a', 'string', 'v')]));
    const fallback = { mine: true };
    const missing = evaluator.evaluate('b', { targetingKey: 'u' }, fallback);
    assert.equal(missing.value, fallback);
    assert.equal(missing.reason, 'ERROR');
    assert.equal(missing.errorCode, 'FLAG_NOT_FOUND');
    assert.equal(evaluator.evaluate('a', {}, 17).errorCode, 'TYPE_MISMATCH');
    assert.equal(evaluator.evaluate('a', {}, 17).value, 17);
    assert.equal(evaluator.evaluate('a', {}, 'text').value, 'v');
    assert.equal(evaluator.evaluate('b', {}).value, undefined);
});

test('a context that cannot be read is an error of that call alone', () => {
    const evaluator = new sdk.Evaluator(snapshot([flag('a', 'boolean', true)]));
    const cyclic = {};
    cyclic.self = cyclic;
    for (const context of [cyclic, '[]', { targetingKey: 17 }, { big: 1n }, 17, () => {}]) {
        const answer = evaluator.evaluate('a', context, false);
        assert.equal(answer.value, false);
        assert.equal(answer.errorCode, 'INVALID_CONTEXT');
        assert.notEqual(answer.errorMessage, '');
    }
    assert.equal(evaluator.evaluate('a', null, false).value, true);
});

test('one bad flag fails alone and is listed', () => {
    const evaluator = new sdk.Evaluator(snapshot([flag('a', 'boolean', true), { key: 'bad', kind: 'boolean' }]));
    assert.equal(evaluator.problems.length, 1);
    assert.equal(evaluator.problems[0].flag, 'bad');
    assert.equal(evaluator.evaluate('bad', {}, false).errorCode, 'PARSE_ERROR');
    assert.equal(evaluator.evaluate('a', {}, false).value, true);
});

test('a patch is applied, ignored when old, and refused when something is missing', () => {
    const evaluator = new sdk.Evaluator(snapshot([flag('a', 'boolean', true)]));
    const patch = { from: 1, revision: 'h:3', flags: [flag('b', 'number', 2)], removedFlags: ['a'] };
    assert.equal(evaluator.applyPatch({ ...patch, from: 2 }), 'resync');
    assert.equal(evaluator.applyPatch({ ...patch, revision: 'other:3' }), 'resync');
    assert.equal(evaluator.revision, 'h:1');
    assert.equal(evaluator.applyPatch(JSON.stringify(patch)), 'applied');
    assert.equal(evaluator.applyPatch(patch), 'ignored');
    assert.equal(evaluator.revision, 'h:3');
    assert.equal(evaluator.evaluate('b', {}, 1).value, 2);
    assert.equal(evaluator.evaluate('a', {}, false).errorCode, 'FLAG_NOT_FOUND');
    assert.throws(() => evaluator.applyPatch('{'), /this patch cannot be used: /);
});
