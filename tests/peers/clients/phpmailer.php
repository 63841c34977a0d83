<?php
// Sends one message over PHPMailer's SMTP connection: HOST PORT FROM TO[,TO…] FILE.
require '/usr/share/php/libphp-phpmailer/autoload.php';

[, $host, $port, $from, $to, $file] = $argv;
$smtp = new PHPMailer\PHPMailer\SMTP();
$done = $smtp->connect($host, (int) $port, 60) && $smtp->hello('php.example') && $smtp->mail($from);
foreach (explode(',', $to) as $recipient) {
    $done = $done && $smtp->recipient($recipient);
}
// It ends every line itself, the last one too.
$done = $done && $smtp->data(preg_replace('/\r\n$/D', '', file_get_contents($file)));
if (!$done) {
    fwrite(STDERR, json_encode($smtp->getError()) . "\n");
    exit(1);
}
$smtp->quit();
