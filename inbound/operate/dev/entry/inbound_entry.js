// What the local Lambda loads in place of a JavaScript function: it runs the function from the folder where its author edits it,
// so that its node_modules and the files beside it are found. Where that folder is not, it takes the copy that came along.

const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");

const source = JSON.parse(fs.readFileSync(path.join(__dirname, "inbound_entry.json"), "utf8"));
const there = path.join(source.folder, source.file);
const file = fs.existsSync(there) ? there : path.join(__dirname, source.file);
process.chdir(path.dirname(file));
process.env.LAMBDA_TASK_ROOT = path.dirname(file);

const loaded = import(pathToFileURL(file).href).then((module) => {
  const found = module[source.handler] || (module.default && module.default[source.handler]);
  if (typeof found !== "function") throw new Error(`${source.file} exports no function ${source.handler}`);
  return found;
});
loaded.catch(() => {}); // the failure is reported by the first invocation

exports.handler = (event, context, callback) => {
  loaded
    .then((handler) => {
      const answer = handler(event, context, callback);
      const isPromise = answer && typeof answer.then === "function";
      if (isPromise || handler.length < 3) return Promise.resolve(answer).then((value) => callback(null, value));
    })
    .catch(callback);
};
