// Sends one message with nodemailer: HOST PORT FROM TO[,TO…] FILE.
const fs = require("fs");
const nodemailer = require("nodemailer");

const [host, port, from, to, file] = process.argv.slice(2);
const transport = nodemailer.createTransport({ host, port: Number(port), secure: false });
transport
  .sendMail({ envelope: { from, to: to.split(",") }, raw: fs.readFileSync(file) })
  .then((sent) => {
    if (sent.rejected.length > 0) throw new Error(`refused: ${sent.rejected}`);
    transport.close();
  })
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
