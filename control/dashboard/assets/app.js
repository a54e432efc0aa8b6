// What a page does beyond being one: it follows what changes. Every page works
// without.
import { followPage } from './live.js';
import { followOutput } from './output.js';

const main = document.getElementById('main');
if (main?.dataset.live) followPage(main);

const output = document.getElementById('output');
if (output?.dataset.events) followOutput(output);
