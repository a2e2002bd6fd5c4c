import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sdk } from './module.mjs';

test('the module speaks version 1 of the push protocol', () => {
    assert.equal(sdk.protocolVersion(), 1);
});
