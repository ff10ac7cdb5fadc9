// One-shot service `mongodb-init`: makes the single node a replica set, which gives it the oplog
// that point-in-time backups need. Safe to repeat. Run by `mongosh --nodb --file`.
const password = require("fs").readFileSync("/run/secrets/mongodb_password", "utf8");
const admin = new Mongo(
  `mongodb://neuroca:${encodeURIComponent(password)}@mongodb:27017/admin?directConnection=true`,
).getDB("admin");

try {
  admin.runCommand({ replSetGetStatus: 1 });
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  admin.runCommand({
    replSetInitiate: { _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] },
  });
}
