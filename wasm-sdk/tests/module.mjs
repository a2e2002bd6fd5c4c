// Loads the built module, from the folder that GUIDON_WASM names.
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = resolve(process.env.GUIDON_WASM ?? 'target/wasm-sdk');

export const sdk = await import(pathToFileURL(join(folder, 'guidon_wasm_sdk.js')));
sdk.initSync({ module: readFileSync(join(folder, 'guidon_wasm_sdk_bg.wasm')) });
