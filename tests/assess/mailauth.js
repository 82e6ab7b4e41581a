// Asks mailauth, an independent verifier, about messages: JSON on standard input, its verdicts as JSON on standard output.
// Usage: node mailauth.js FOLDER_OF_MAILAUTH < {"zone": {name: [text]}, "cases": [{message (base64), ip, helo, sender}]}
'use strict';

const { authenticate } = require(require('path').resolve(process.argv[2], 'lib', 'mailauth.js'));

const input = JSON.parse(require('fs').readFileSync(0, 'utf8'));

const resolver = async (name, type) => {
    const texts = type === 'TXT' ? input.zone[name.toLowerCase()] : undefined;
    if (!texts) {
        throw Object.assign(new Error(`no ${type} of ${name}`), { code: 'ENOTFOUND' });
    }
    return texts.map(text => [text]);
};

const judge = async each => {
    const { dkim, spf, dmarc } = await authenticate(Buffer.from(each.message, 'base64'), {
        ip: each.ip, helo: each.helo, sender: each.sender, mta: 'mx.test', resolver, disableArc: true, disableBimi: true
    });
    return {
        spf: spf && spf.status.result,
        dkim: dkim.results.map(found => found.status.result),
        dmarc: dmarc && dmarc.status && dmarc.status.result
    };
};

(async () => {
    const found = [];
    for (const each of input.cases) {
        found.push(await judge(each));
    }
    process.stdout.write(JSON.stringify(found));
})();
