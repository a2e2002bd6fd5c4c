// Runs the shared vectors on the WASM build: it must answer what the native evaluator answers.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';

import { sdk } from './module.mjs';

const folder = new URL('../../tests/vectors/', import.meta.url);
const vectors = readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => ({ name, ...JSON.parse(readFileSync(new URL(name, folder), 'utf8')) }));

test('there are vectors of both kinds', () => {
    assert.ok(vectors.some((file) => file.cases?.length > 0));
    assert.ok(vectors.some((file) => file.slots?.length > 0));
});

for (const { name, snapshot, cases, brokenFlags = [] } of vectors.filter((file) => file.cases)) {
    test(`${name}: ${cases.length} evaluations`, () => {
        const evaluator = new sdk.Evaluator(snapshot);
        assert.deepEqual([...new Set(evaluator.problems.map(({ flag }) => flag))].sort(), brokenFlags);
        for (const { flag, context, default: fallback, expect } of cases) {
            const { revision, ...answer } = evaluator.evaluate(flag, context, fallback);
            assert.equal(revision, snapshot.revision);
            assert.deepEqual(answer, expect, `${flag} for ${JSON.stringify(context)}`);
        }
        evaluator.free();
    });
}

// A rollout over one variation answers every unit, with its slot.
const rollout = (salt, index) => ({
    key: `salt-${index}`,
    kind: 'boolean',
    variations: [{ key: 'on', value: true }],
    config: {
        on: true,
        offVariation: 'on',
        fallthrough: { rollout: { weights: { on: 100_000 }, salt, allocation: [['on', 0, 100_000]] } },
    },
});

for (const { name, slots } of vectors.filter((file) => file.slots)) {
    test(`${name}: ${slots.length} slots`, () => {
        const salts = [...new Set(slots.map(({ salt }) => salt))];
        const evaluator = new sdk.Evaluator({
            revision: 'vectors:1',
            project: 'vectors',
            environment: 'production',
            flags: salts.map(rollout),
            segments: [],
        });
        for (const { salt, unit, slot } of slots) {
            const answer = evaluator.evaluate(`salt-${salts.indexOf(salt)}`, { targetingKey: unit });
            assert.equal(answer.slot, slot, `salt ${JSON.stringify(salt)}, unit ${JSON.stringify(unit)}`);
        }
        evaluator.free();
    });
}
