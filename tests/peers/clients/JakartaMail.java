import jakarta.mail.Session;
import jakarta.mail.Transport;
import jakarta.mail.internet.InternetAddress;
import jakarta.mail.internet.MimeMessage;
import java.io.FileInputStream;
import java.util.Properties;

/** Sends one message with Jakarta Mail: HOST PORT FROM TO[,TO…] FILE. */
public final class JakartaMail {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("mail.smtp.host", arguments[0]);
        properties.put("mail.smtp.port", arguments[1]);
        properties.put("mail.smtp.from", arguments[2]);
        properties.put("mail.smtp.localhost", "java.example");
        properties.put("mail.smtp.allow8bitmime", "true");
        Session session = Session.getInstance(properties);
        try (FileInputStream file = new FileInputStream(arguments[4])) {
            MimeMessage message = new MimeMessage(session, file);
            // Not Transport.send, which gives every message a new Message-ID.
            try (Transport transport = session.getTransport("smtp")) {
                transport.connect();
                transport.sendMessage(message, InternetAddress.parse(arguments[3]));
            }
        }
    }
}
